-- Groups: hash `umbel.group.<name>` of size, count, last (what completed it), stage, and a payload for each index.
local function group_key(name) return R .. 'umbel.group.' .. name end

local function completes(key, size, last)
  size = tonumber(size)
  if not size or tonumber(redis.call('HGET', key, 'count') or 0) < size then return false end
  for index = 0, size - 1 do
    if redis.call('HEXISTS', key, 'p' .. index) == 0 then return false end
  end
  redis.call('HSET', key, 'stage', 'complete', 'last', last)
  return true
end

-- Whether a group takes parts still: size, and nil; or nil, and whether this call has completed it.
local function open_group(key, size, last)
  local known = redis.call('HMGET', key, 'size', 'stage', 'last')
  if known[2] == 'complete' then return nil, known[3] == last end
  if known[2] then return nil, false end
  if known[1] then return known[1] end
  if size ~= '' then redis.call('HSET', key, 'size', size) end
  return size
end

-- Take a part (size '': not known yet); true when its caller is to be told that the group is complete.
local function join_part(name, index, payload, size)
  local key = group_key(name)
  local known, told = open_group(key, size, index)
  if not known then return told end
  local place, limit = tonumber(index), tonumber(known)
  if place >= 0 and not (limit and place >= limit) and redis.call('HSETNX', key, 'p' .. index, payload) == 1 then
    redis.call('HINCRBY', key, 'count', 1)
  end
  return completes(key, known, index)
end

-- Take the size; true when its caller is to be told that the group is complete.
local function expect_group(name, size)
  local key = group_key(name)
  local known, told = open_group(key, size, '')
  if not known then return told end
  return completes(key, known, '')
end

local function confirm_group(name)
  local key = group_key(name)
  if redis.call('HGET', key, 'stage') == 'complete' then redis.call('HSET', key, 'stage', 'confirmed') end
end

-- The payloads by index, or nil while the group is not complete.
local function payloads_of(name)
  local key = group_key(name)
  local known = redis.call('HMGET', key, 'size', 'stage')
  if not known[1] or (known[2] ~= 'complete' and known[2] ~= 'confirmed') then return nil end
  local size, found = tonumber(known[1]), {}
  for first = 0, size - 1, 1000 do
    local names = {}
    for index = first, math.min(first + 999, size - 1) do names[#names + 1] = 'p' .. index end
    for _, payload in ipairs(redis.call('HMGET', key, unpack(names))) do found[#found + 1] = payload end
  end
  return found
end

-- Delete a group; until `expires` (epoch seconds, 0: not at all) repeats find it closed.
local function forget_group(name, expires)
  local key = group_key(name)
  redis.call('DEL', key)
  expires = tonumber(expires)
  if expires > 0 then
    redis.call('HSET', key, 'stage', 'forgotten')
    redis.call('EXPIREAT', key, string.format('%.0f', math.ceil(expires)))
  end
end
