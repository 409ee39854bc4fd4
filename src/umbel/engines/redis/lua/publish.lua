-- now, look, (list, queue, envelope, due)…: push, or put away until due where a live consumer will fetch it.
-- With look = 1 the call is a repeat: what is stored already is left alone.
local now = clock(ARGV[1])
local text, alive = string.format('%.17g', now), {}
for n = 3, #ARGV, 4 do
  local list, queue, raw, due = ARGV[n], ARGV[n + 1], ARGV[n + 2], ARGV[n + 3]
  local stored = false
  if ARGV[2] == '1' then
    stored = redis.call('LPOS', P .. list, raw, 'MAXLEN', 100000)
      or redis.call('ZSCORE', P .. 'umbel.scheduled', list .. '\0' .. raw)
  end
  if not stored then
    local later = due ~= '' and tonumber(due) > now
    if later and alive[queue] == nil then
      alive[queue] = redis.call('ZCOUNT', P .. 'umbel.consumers.' .. queue, text, '+inf') > 0
    end
    if later and alive[queue] then
      schedule(list, raw, due)
    else
      redis.call('LPUSH', P .. list, raw)
    end
  end
end
return 1
