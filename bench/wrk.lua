-- Without arguments: the same request again and again. With one, a prefix: append names that begin with it.
-- With two, a number: so many names, then stop. That time is taken here: wrk itself sleeps its duration out.
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

-- Errors by status are those from 400 on, so a 304 is none.
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\nRESULT {"requests": %d, "bytes": %d, "microseconds": %d, "status": %d, "socket": %d}\n',
    summary.requests, summary.bytes, thread:get("took") or summary.duration,
    e.status, e.connect + e.read + e.write + e.timeout))
end
