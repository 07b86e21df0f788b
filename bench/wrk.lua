-- Sends prepared requests in a prepared order: `-- REQUESTS ORDER`.
-- REQUESTS: raw requests, each ended by a NUL byte. ORDER: their numbers from 1, a line each; empty: all in turn.
local requests, order, count, sent = {}, {}, 0, 0

function init(args)
  for one in io.open(args[1], "rb"):read("*a"):gmatch("([^%z]+)%z") do
    requests[#requests + 1] = one
  end
  for line in io.lines(args[2]) do
    order[#order + 1] = tonumber(line)
  end
  if #order == 0 then
    for number = 1, #requests do
      order[number] = number
    end
  end
  count = #order
end

function request()
  sent = sent % count + 1
  return requests[order[sent]]
end
