-- What wrk sends, and how often: each connection waits between two requests, so that an error
-- is a lost request and not an overloaded machine. The last line of the output is for load.py.

function init(args)
  math.randomseed(tonumber(args[1]))
  pause = tonumber(args[2])
end

function delay()
  return math.random(pause / 2, pause * 3 / 2)
end

function done(summary)
  local errors = summary.errors
  print(string.format("requests=%d connect=%d read=%d write=%d status=%d timeout=%d",
    summary.requests, errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
