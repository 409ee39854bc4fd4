-- owner, (list, number, note)…: note that these are about to start; answers the numbers that are not held.
local owner, stale, notes = ARGV[1], {}, {}
even_when_full()
for n = 2, #ARGV, 3 do
  if redis.call('HEXISTS', held_key(owner, ARGV[n]), ARGV[n + 1]) == 1 then
    notes[#notes + 1] = ARGV[n + 1]
    notes[#notes + 1] = ARGV[n + 2]
  else
    stale[#stale + 1] = ARGV[n + 1]
  end
end
if #notes > 0 then in_chunks('HSET', P .. 'umbel.notes.' .. owner, notes) end
return stale
