-- owner, seconds, now, seconds for copies, queue…: keep the leases; answers 1 when something was taken from the owner.
even_when_full()
local now = clock(ARGV[3])
local deadline = now + tonumber(ARGV[2])
redis.call('ZADD', P .. 'umbel.owners', 'XX', deadline, ARGV[1])
for n = 5, #ARGV do redis.call('ZADD', P .. 'umbel.consumers.' .. ARGV[n], 'XX', deadline, ARGV[1]) end
if redis.call('EXISTS', P .. 'umbel.copies') == 1 then
  for n = 5, #ARGV do redis.call('ZADD', P .. 'umbel.copies', 'XX', now + tonumber(ARGV[4]), ARGV[n]) end
  sweep_copies(now, tonumber(ARGV[4]))
end
return redis.call('DEL', P .. 'umbel.lost.' .. ARGV[1])
