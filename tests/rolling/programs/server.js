// Node's own HTTP server with the stop that its documentation shows: close(), then the end.
'use strict';
const http = require('http');

const server = http.createServer((request, response) => {
  setTimeout(() => response.end('served\n'), 20);
});
// Node's 5 s are less than a proxy keeps an idle connection: it would lose the request that it
// sends on it in that moment.
server.keepAliveTimeout = 75000;
server.listen(Number(process.argv[2]));

process.on('SIGTERM', () => {
  server.close();
  // Before version 19, close() waits for idle connections until they time out.
  setInterval(() => server.closeIdleConnections(), 100).unref();
});
