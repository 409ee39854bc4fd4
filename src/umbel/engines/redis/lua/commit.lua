-- owner, call, then for each settlement: list, number, how many of the arguments that follow are its effects:
--   record <id> <seconds> <meta> <final> · push <list> <envelope> · front <list> <envelope> ·
--   wait <list> <envelope> <due> · dead <letter> ·
--   park <due> (the message itself) ·
--   part <group> <index> <payload> <size> <effects of its body> (with how many they are)
-- Answers the numbers of those that were not held, nothing of which is applied.
-- Redis is asked for many at once wherever it can be: most of a call's time is the way from Lua to Redis.
even_when_full()
local owner, notes = ARGV[1], P .. 'umbel.notes.' .. ARGV[1]
local starts, numbers, results, unwritten = {}, {}, {}, {}
local n = 3
while n <= #ARGV do
  starts[#starts + 1] = n
  numbers[#numbers + 1] = ARGV[n + 1]
  local count = tonumber(ARGV[n + 2])
  if count > 4 and ARGV[n + 3] == 'record' then
    results[#results + 1] = R .. 'celery-task-meta-' .. ARGV[n + 4]
    unwritten[ARGV[n + 4]] = true
  end
  n = n + 3 + count
end
local held = many('HMGET', notes, numbers)
local known = 0
for first = 1, #results, 1000 do
  known = known + redis.call('EXISTS', unpack(results, first, math.min(first + 999, #results)))
end

local effects = {}

function effects.record(n)
  if known == 0 and unwritten[ARGV[n]] then
    write_record(ARGV[n], ARGV[n + 1], ARGV[n + 2], ARGV[n + 3])
  else
    put_record(ARGV[n], ARGV[n + 1], ARGV[n + 2], ARGV[n + 3])
  end
  unwritten[ARGV[n]] = nil
  return n + 4
end
function effects.push(n) redis.call('LPUSH', P .. ARGV[n], ARGV[n + 1]) return n + 2 end
function effects.front(n) redis.call('RPUSH', P .. ARGV[n], ARGV[n + 1]) return n + 2 end
function effects.wait(n) schedule(ARGV[n], ARGV[n + 1], ARGV[n + 2]) return n + 3 end
function effects.park(n, list, raw) schedule(list, raw, ARGV[n]) return n + 1 end
function effects.dead(n) bury(ARGV[n]) return n + 1 end

local function apply(n, last, list, raw)
  while n <= last do n = effects[ARGV[n]](n + 1, list, raw) end
end

function effects.part(n)
  local last = n + 4 + tonumber(ARGV[n + 4])
  if join_part(ARGV[n], ARGV[n + 1], ARGV[n + 2], ARGV[n + 3]) then
    confirm_group(ARGV[n])
    apply(n + 5, last)
  end
  return last + 1
end

local stale, gone, of_list = {}, {}, {}
for place, n in ipairs(starts) do
  local list, number, count = ARGV[n], ARGV[n + 1], tonumber(ARGV[n + 2])
  if held[place] and not gone[number] then
    local ended = of_list[list]
    if not ended then
      ended = {}
      of_list[list] = ended
    end
    ended[#ended + 1] = number
    gone[number] = true
    if count > 0 then
      local raw = ARGV[n + 3] == 'park' and redis.call('HGET', held_key(owner, list), number)
      apply(n + 3, n + 2 + count, list, raw)
    end
  else
    stale[#stale + 1] = number
  end
end
for list, ended in pairs(of_list) do
  in_chunks('HDEL', held_key(owner, list), ended)
  in_chunks('HDEL', notes, ended)
end
if ARGV[2] ~= '' then
  redis.call('SET', P .. 'umbel.settled.' .. owner, ARGV[2] .. ' ' .. table.concat(stale, ' '), 'EX', 86400)
end
return stale
