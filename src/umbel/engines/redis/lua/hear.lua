-- seconds, exchange, envelope, (queue, list)…: store what was heard from another kind of producer in each queue, once
-- within so many seconds however many workers hear it; answers in how many queues.
local heard = P .. 'umbel.heard.' .. redis.sha1hex(ARGV[2] .. '\0' .. ARGV[3])
local stored = 0
for n = 4, #ARGV, 2 do
  if redis.call('HSETNX', heard, ARGV[n], '1') == 1 then
    redis.call('LPUSH', P .. ARGV[n + 1], ARGV[3])
    stored = stored + 1
  end
end
redis.call('EXPIRE', heard, ARGV[1])
return stored
