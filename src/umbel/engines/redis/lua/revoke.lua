-- (id, seconds)…: mark tasks as revoked for so many seconds ('0': for ever), in zset `umbel.revoked`: id → until when.
local now = clock('')
for n = 1, #ARGV, 2 do
  local seconds = tonumber(ARGV[n + 1])
  redis.call('ZADD', P .. 'umbel.revoked', seconds > 0 and string.format('%.3f', now + seconds) or '+inf', ARGV[n])
end
return #ARGV / 2
