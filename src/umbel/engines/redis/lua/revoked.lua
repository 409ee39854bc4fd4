-- id…: the places of those that are marked as revoked.
local key, answer = P .. 'umbel.revoked', {}
if redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.3f', clock(''))) >= 0 then
  for first = 1, #ARGV, 1000 do
    local last = math.min(first + 999, #ARGV)
    local scores = redis.call('ZMSCORE', key, unpack(ARGV, first, last))
    for n = first, last do
      if scores[n - first + 1] then answer[#answer + 1] = n - 1 end
    end
  end
end
return answer
