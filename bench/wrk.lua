-- One argument, a prefix: append a name of its own with every request. Without: the same request again.
function init(args)
  if args[1] then
    local count = 0
    request = function()
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
    summary.requests, summary.bytes, summary.duration, e.status, e.connect + e.read + e.write + e.timeout))
end
