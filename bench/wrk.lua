-- Without arguments, wrk repeats one request. With one argument, a prefix, wrk appends names with that prefix.
-- With a second argument, a number, wrk stops after that many names. The time is taken here, because wrk itself
-- always sleeps for its whole duration.
local ffi = require("ffi")
ffi.cdef("typedef struct { long seconds, microseconds; } timeval; int gettimeofday(timeval *, void *);")

local function now()
  local time = ffi.new("timeval")
  ffi.C.gettimeofday(time, nil)
  return tonumber(time.seconds) * 1e6 + tonumber(time.microseconds)
end

local thread

function setup(one)
  thread = one
end

function init(args)
  if args[1] then
    local count, most, start = 0, tonumber(args[2] or "inf"), nil
    request = function()
      start = start or now()
      if count == most then
        took = now() - start
        wrk.thread:stop()
      end
      count = count + 1
      return wrk.format("GET", wrk.path .. args[1] .. count)
    end
  end
end

-- wrk counts a status of 400 or more as an error, so a 304 is no error.
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\nRESULT {"requests": %d, "bytes": %d, "microseconds": %d, "status": %d, "socket": %d}\n',
    summary.requests, summary.bytes, thread:get("took") or summary.duration,
    e.status, e.connect + e.read + e.write + e.timeout))
end
