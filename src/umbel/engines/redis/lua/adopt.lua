-- owner, now, seconds, (name, token, list, envelope, ticket and former owner)…: store messages as leased. Answers for
-- each {number, token, bumps, list} as the owner holds it now, or {} where another owner does; and at last whether
-- anything is revoked.
local owner, deadline = ARGV[1], clock(ARGV[2]) + tonumber(ARGV[3])
local index, notes = P .. 'umbel.adopted', P .. 'umbel.notes.' .. owner
local count = (#ARGV - 3) / 5
redis.call('ZADD', P .. 'umbel.owners', deadline, owner)
local before = redis.call('INCRBY', P .. 'umbel.tag', count) - count
local seen, lists, answer = {}, {}, {}

-- Who holds a message: number, token, list, owner; nil when nobody does any more.
local function holder(entry)
  local number, token, list, who = adopted_entry(entry)
  if number and redis.call('HEXISTS', held_key(who, list), number) == 1 then return number, token, list, who end
end

local function store(number, name, token, list, raw, note)
  if not lists[list] then
    lists[list] = true
    redis.call('SADD', P .. 'umbel.lists.' .. owner, list)
  end
  redis.call('HSET', held_key(owner, list), number, raw)
  redis.call('HSET', notes, number, '0 ' .. note)
  note_adopted(name, number, token, list, owner)
  return {number, token, 0, list}
end

local function renew(number, token, list, note)
  local bumps = string.match(redis.call('HGET', notes, number) or '0', '^%d+')
  redis.call('HSET', notes, number, bumps .. ' ' .. note)
  return {number, token, bumps, list}
end

local function adopt(number, entry, name, token, list, raw, note)
  local held, held_token, held_list, who = holder(entry)
  if held and tonumber(token) > held_token then
    -- Its owner has let it go, and it has come round again.
    redis.call('HDEL', held_key(who, held_list), held)
    redis.call('HDEL', P .. 'umbel.notes.' .. who, held)
    held = nil
  end
  if not held then return store(number, name, token, list, raw, note) end
  return who == owner and renew(held, held_token, held_list, note) or {}
end

for first = 4, #ARGV, 2500 do
  local names = {}
  for n = first, math.min(first + 2499, #ARGV), 5 do names[#names + 1] = ARGV[n] end
  local known = redis.call('HMGET', index, unpack(names))
  for place, name in ipairs(names) do
    local n = first + (place - 1) * 5
    local entry = known[place]
    if seen[name] then entry = redis.call('HGET', index, name) end
    seen[name] = true
    local number = string.format('%.0f', before + (n + 1) / 5)
    answer[#answer + 1] = adopt(number, entry, name, unpack(ARGV, n + 1, n + 4))
  end
end
answer[#answer + 1] = redis.call('EXISTS', (KEYS[2] or P) .. 'umbel.revoked')
return answer
