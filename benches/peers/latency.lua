-- What wrk found, as one line of JSON; times in microseconds.
function done(summary, latency, requests)
    local e = summary.errors
    io.write(string.format(
        '{"requests":%d,"us":%d,"bytes":%d,"errors":%d,"p50_us":%d,"p99_us":%d}\n',
        summary.requests, summary.duration, summary.bytes,
        e.connect + e.read + e.write + e.status + e.timeout,
        latency:percentile(50), latency:percentile(99)))
end

-- With a file of tokens behind `--`, each request takes the next one.
local tokens, place = {}, 0
function init(arguments)
    if arguments[1] then
        for line in io.lines(arguments[1]) do tokens[#tokens + 1] = "Bearer " .. line end
        request = function()
            place = place % #tokens + 1
            wrk.headers["authorization"] = tokens[place]
            return wrk.format()
        end
    end
end
