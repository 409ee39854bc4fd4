-- Groups, in the keys of Celery's Redis backend, so that its workers and these complete one together:
-- `celery-taskset-meta-<name>` and .j payloads by index · .d who has joined (`task:index`) · .s size · .t members that
-- came later · .c who has completed it: 'umbel complete <task:index>' ('umbel complete ' where the size did),
-- 'umbel confirmed', 'done', or a worker of Celery's. Nothing of it may expire while it is open.
-- `umbel.body.<name>` is what has to be published then, `umbel.joined` since when complete groups are not confirmed.
local GROWN = 1000000000
local COMPLETE = 'umbel complete '
local LATE = R .. 'umbel.joined'
-- Seconds for which is kept what Celery's workers do not delete with the rest.
local LONG = 86400
local groups = {}

-- What is known of a group in this run: its keys, size (nil: not known), how far it has grown, who has completed it.
local function group_of(name)
  local group = groups[name]
  if not group then
    local base = R .. 'celery-taskset-meta-' .. name
    group = {j = base .. '.j', t = base .. '.t', s = base .. '.s', d = base .. '.d', c = base .. '.c'}
    group.name, group.growth, group.body = name, R .. 'umbel.growth.' .. name, R .. 'umbel.body.' .. name
    local values = redis.call('MGET', group.s, group.t, group.c)
    group.size, group.grown, group.claim = tonumber(values[1] or nil), tonumber(values[2] or 0), values[3]
    groups[name] = group
  end
  return group
end

-- Celery's workers let what they join expire.
local function keep(group)
  if group.kept then return end
  group.kept = true
  redis.call('PERSIST', group.j)
  redis.call('PERSIST', group.d)
  if group.size then redis.call('PERSIST', group.s) end
  if group.grown > 0 then redis.call('PERSIST', group.t) end
end

local function take_size(group, size)
  if group.size or size == '' then return end
  group.size = tonumber(size)
  redis.call('SET', group.s, size)
  keep(group)
end

-- Whether an index may belong to it, as far as that is known.
local function has_index(group, index)
  if not group.size then return index >= 0 end
  return (index >= 0 and index < group.size) or (index >= GROWN and index < GROWN + group.grown)
end

-- Is it the list that Celery keeps with result_chord_ordered=False, begun by one of its workers?
local function is_list(group)
  if group.list == nil then group.list = redis.call('TYPE', group.j).ok == 'list' end
  return group.list
end

-- Equal payloads of two members are one to a sorted set: the second one gets spaces, which `unpadded` takes off.
local function add_payload(group, index, payload)
  local added = redis.pcall('ZADD', group.j, 'NX', index, payload)
  if added == 1 then
    if group.count then group.count = group.count + 1 end
    return
  end
  group.count = nil
  if added ~= 0 then
    if is_list(group) then redis.call('RPUSH', group.j, payload) end
    return
  end
  if tonumber(redis.call('ZSCORE', group.j, payload)) == tonumber(index) then return end
  repeat payload = payload .. ' ' until redis.call('ZADD', group.j, 'NX', index, payload) == 1
  redis.call('SADD', group.d, 'umbel padded ' .. payload)
end

-- How many payloads there are, all in all.
local function count_of(group)
  if not group.count then
    local count = redis.pcall('ZCARD', group.j)
    group.count = type(count) == 'number' and count or redis.call('LLEN', group.j)
  end
  return group.count
end

local function unpadded(group, payload)
  while string.sub(payload, -1) == ' ' and redis.call('SISMEMBER', group.d, 'umbel padded ' .. payload) == 1 do
    payload = string.sub(payload, 1, -2)
  end
  return payload
end

-- Whether it takes no more parts. While a worker of Celery's has claimed it, it does: that one may die with its claim.
local function is_closed(group)
  return group.claim and (group.claim == 'done' or string.sub(group.claim, 1, 6) == 'umbel ')
end

-- Whether all have joined; then it is claimed for `last`, which is told so again until the group is confirmed.
local function completes(group, last)
  if not group.size then return false end
  local total = group.size + group.grown
  local count = count_of(group)
  if count >= total and not is_list(group) then
    count = redis.call('ZCOUNT', group.j, 0, '(' .. group.size) + redis.call('ZCOUNT', group.j, GROWN, '+inf')
  end
  if count < total then return false end
  group.claim = COMPLETE .. last
  redis.call('SET', group.c, group.claim)
  return true
end

-- Take a part (size '': not known yet); true when its caller is to be told that the group is complete. A body (nil or
-- '': none) is kept for the case that the size, or a part without one, comes last.
local function join_part(name, index, payload, size, member, body)
  local group = group_of(name)
  local entry = member .. ':' .. index
  if is_closed(group) then return group.claim == COMPLETE .. entry end
  take_size(group, size)
  if has_index(group, tonumber(index)) and redis.call('SADD', group.d, entry) == 1 then
    add_payload(group, index, payload)
    keep(group)
  end
  if body and body ~= '' and not group.has_body then
    group.has_body = true
    redis.call('SET', group.body, body, 'EX', LONG)
  end
  return not group.claim and completes(group, entry)
end

-- Take the size; true when its caller is to be told that the group is complete.
local function expect_group(name, size)
  local group = group_of(name)
  if group.claim then return group.claim == COMPLETE end
  take_size(group, size)
  return completes(group, '')
end

-- Let it have more members; the index of the first of them, the same again for the same key ('': none).
local function grow_group(name, by, key)
  local group = group_of(name)
  local known = key ~= '' and redis.call('HGET', group.growth, key)
  if known then return tonumber(known) end
  local first = GROWN + group.grown
  if not group.claim then
    group.grown = redis.call('INCRBY', group.t, by)
    keep(group)
    if key ~= '' then
      redis.call('HSET', group.growth, key, string.format('%.0f', first))
      redis.call('EXPIRE', group.growth, LONG)
    end
  end
  return first
end

-- Until it is confirmed, keep the body of a group that has just become complete; answers it (false: there is none).
local function await_confirmation(name, since)
  local group = group_of(name)
  local body = redis.call('GET', group.body)
  if body then
    redis.call('PERSIST', group.body)
    redis.call('ZADD', LATE, 'NX', since, name)
  end
  return body
end

local function confirm_group(name)
  local group = group_of(name)
  if group.claim and string.sub(group.claim, 1, #COMPLETE) == COMPLETE then
    group.claim = 'umbel confirmed'
    redis.call('SET', group.c, group.claim)
    redis.call('DEL', group.body)
    redis.call('ZREM', LATE, name)
  end
end

-- The payloads by index, or nil while the group is not complete.
local function payloads_of(name)
  local group = group_of(name)
  if not group.claim or string.sub(group.claim, 1, 6) ~= 'umbel ' then return nil end
  if is_list(group) then return redis.call('LRANGE', group.j, 0, -1) end
  local found = redis.call('ZRANGEBYSCORE', group.j, 0, '(' .. group.size)
  for _, payload in ipairs(redis.call('ZRANGEBYSCORE', group.j, GROWN, '+inf')) do found[#found + 1] = payload end
  for place, payload in ipairs(found) do found[place] = unpadded(group, payload) end
  return found
end

-- Delete a group; until `expires` (epoch seconds, 0: not at all) repeats find it closed.
local function forget_group(name, expires)
  local group = group_of(name)
  redis.call('DEL', group.j, group.t, group.s, group.d, group.c, group.growth, group.body)
  redis.call('ZREM', LATE, name)
  expires = tonumber(expires)
  if expires > 0 then
    redis.call('SET', group.c, 'done')
    redis.call('EXPIREAT', group.c, string.format('%.0f', math.ceil(expires)))
  end
  groups[name] = nil
end
