// What V8 and libuv make of the limits.
console.log('availableParallelism', require('os').availableParallelism());
console.log('heap_size_limit', require('v8').getHeapStatistics().heap_size_limit);
console.log('stackTraceLimit', Error.stackTraceLimit);
