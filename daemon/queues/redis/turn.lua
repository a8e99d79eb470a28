-- Everything that one of those who share a partition's queues asks, at one moment.
--
-- KEYS[1]  what all keys of the partition begin with
-- ARGV[1]  the ask, in MessagePack, as script.py writes it
--
-- A task is a record in the hash :tasks, by its id, and in exactly one of: :ready:QUEUE (score: -priority; the member
-- begins with the time, so that equals go by age), :leases (score: when it lapses), :delayed (score: when it is over).
-- :ages:QUEUE has every task of a queue by its age, and so says how many there are.

local P = KEYS[1]
local ask = cmsgpack.unpack(ARGV[1])
local limit, lease_ms, delay_ms = ask[1], ask[2], ask[3]
local TASKS, LEASES, DELAYED, QUEUES = P .. ':tasks', P .. ':leases', P .. ':delayed', P .. ':queues'
local FULL, FILLS, NOTICES, TURN = P .. ':full', P .. ':fills', P .. ':notices', P .. ':turn'
local STEPS = 1000

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local woken = {}

local function ready_key(queue) return P .. ':ready:' .. queue end
local function ages_key(queue) return P .. ':ages:' .. queue end
local function turns_key(resource) return P .. ':turns:' .. resource end

-- A record: queue, resource ('' of an activity), score, member, task, destination, age, offered again (1) or not (0).
local QUEUE, RESOURCE, SCORE, MEMBER, TASK, DESTINATION, AGE, AGAIN = 1, 2, 3, 4, 5, 6, 7, 8

local function record(id)
  local packed = redis.call('HGET', TASKS, id)
  return packed and cmsgpack.unpack(packed)
end

local function keep(id, task) redis.call('HSET', TASKS, id, cmsgpack.pack(task)) end

local function make_ready(task)
  local key = ready_key(task[QUEUE])
  redis.call('ZADD', key, task[SCORE], task[MEMBER])
  if redis.call('ZCARD', key) == 1 then
    woken[task[QUEUE]] = true
    if task[RESOURCE] ~= '' then
      redis.call('ZADD', turns_key(task[RESOURCE]), 'NX', redis.call('INCR', TURN), task[QUEUE])
    end
  end
end

-- 'score member' of the last that is ready: what comes after it is left to the store.
local function horizon(queue)
  local last = redis.call('ZREVRANGE', ready_key(queue), 0, 0, 'WITHSCORES')
  return last[1] and cmsgpack.pack({tonumber(last[2]), last[1]}) or cmsgpack.pack({})
end

local function before(task, packed)
  local last = cmsgpack.unpack(packed)
  if not last[1] then return false end
  local score = tonumber(task[SCORE])
  return score < last[1] or (score == last[1] and task[MEMBER] < last[2])
end

local touched = {}
local function drop(id, task)
  local queue = task[QUEUE]
  if redis.call('ZREM', LEASES, id) + redis.call('ZREM', ready_key(queue), task[MEMBER]) == 0 then
    redis.call('ZREM', DELAYED, id)
  end
  redis.call('HDEL', TASKS, id)
  redis.call('ZREM', ages_key(queue), id)
  if redis.call('ZCARD', ages_key(queue)) == 0 then redis.call('SREM', QUEUES, queue) end
  touched[queue] = true
end

-- There is no memory: only what makes room.
if ask[15] == 1 then
  for _, id in ipairs(ask[5]) do
    local task = record(id)
    if task then drop(id, task) end
  end
  return cmsgpack.pack({})
end

local anew = redis.call('SET', P .. ':generation', ask[11], 'NX') and 1 or 0

-- Leases that have lapsed, delays that are over.
for _, key in ipairs({LEASES, DELAYED}) do
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, STEPS)) do
    redis.call('ZREM', key, id)
    local task = record(id)
    if task then make_ready(task) end
  end
end

local turned_away, away = {}, {}
for _, offer in ipairs(ask[4]) do
  local id, task = offer[1], offer[2]
  local known = record(id)
  if known then
    if offer[3] == 1 and known[AGAIN] == 0 and redis.call('ZSCORE', LEASES, id) then
      known[AGAIN] = 1
      keep(id, known)
    end
  else
    local queue = task[QUEUE]
    local ages = ages_key(queue)
    local full = redis.call('HGET', FULL, queue)
    local filling = full and redis.call('HEXISTS', FILLS, queue) == 1
    local count = redis.call('ZCARD', ages)
    if count < limit and (not full or filling or before(task, full)) then
      keep(id, task)
      redis.call('ZADD', ages, task[AGE], id)
      if count == 0 then redis.call('SADD', QUEUES, queue) end
      make_ready(task)
    else
      if not full then redis.call('HSET', FULL, queue, horizon(queue)) end
      if filling then redis.call('HSET', FILLS, queue, 1) end
      if not away[queue] then
        away[queue] = true
        turned_away[#turned_away + 1] = queue
      end
    end
  end
end

for _, id in ipairs(ask[5]) do
  local task = record(id)
  if task and task[AGAIN] == 1 and redis.call('ZREM', LEASES, id) == 1 then
    task[AGAIN] = 0
    keep(id, task)
    make_ready(task)
  elseif task then
    drop(id, task)
  end
end

for _, id in ipairs(ask[6]) do
  if redis.call('ZREM', LEASES, id) == 1 then
    local task = record(id)
    if task then make_ready(task) end
  end
end
for _, id in ipairs(ask[7]) do
  if redis.call('ZREM', LEASES, id) == 1 then redis.call('ZADD', DELAYED, now + delay_ms, id) end
end
for _, id in ipairs(ask[8]) do redis.call('ZADD', LEASES, 'XX', now + lease_ms, id) end

for _, queue in ipairs(ask[9][1]) do
  if redis.call('HEXISTS', FULL, queue) == 0 then redis.call('HSET', FULL, queue, horizon(queue)) end
  redis.call('HSET', FILLS, queue, 0)
end
for _, queue in ipairs(ask[9][2]) do
  if redis.call('HGET', FILLS, queue) == '0' then
    redis.call('HDEL', FULL, queue)
  else
    redis.call('HSET', FULL, queue, horizon(queue))
    touched[queue] = true
  end
  redis.call('HDEL', FILLS, queue)
  redis.call('DEL', P .. ':filling:' .. queue)
end

-- The first of a queue go to `found`, or are put off: how many went.
local function claim(queue, want, without, found)
  local key = ready_key(queue)
  local got, steps = 0, 0
  while got < want and steps < STEPS do
    local popped = redis.call('ZPOPMIN', key, math.min(want - got, 100))
    if #popped == 0 then break end
    for i = 1, #popped, 2 do
      local id = string.sub(popped[i], 17)
      local task = record(id)
      steps = steps + 1
      if task then
        if without[task[DESTINATION]] then
          redis.call('ZADD', DELAYED, now + delay_ms, id)
        else
          redis.call('ZADD', LEASES, now + lease_ms, id)
          found[#found + 1] = task[TASK]
          got = got + 1
        end
      end
    end
  end
  touched[queue] = true
  return got
end

-- The queue of these resources whose turn it is.
local function next_queue(resources)
  local best, best_turn, of = nil, nil, nil
  for _, resource in ipairs(resources) do
    local first = redis.call('ZRANGE', turns_key(resource), 0, 0, 'WITHSCORES')
    if first[1] and (best_turn == nil or tonumber(first[2]) < best_turn) then
      best, best_turn, of = first[1], tonumber(first[2]), resource
    end
  end
  return best, of
end

local claims = {}
for _, demand in ipairs(ask[10]) do
  local want, queue, resources = demand[1], demand[2], demand[3]
  local without, found, more = {}, {}, 0
  for _, destination in ipairs(demand[4]) do without[destination] = true end
  if queue ~= '' then
    claim(queue, want, without, found)
    more = redis.call('ZCARD', ready_key(queue)) > 0 and 1 or 0
  else
    local steps = 0
    local turn, resource = next_queue(resources)
    while turn and #found < want and steps < STEPS do
      claim(turn, 1, without, found)
      if redis.call('ZCARD', ready_key(turn)) == 0 then
        redis.call('ZREM', turns_key(resource), turn)
      else
        redis.call('ZADD', turns_key(resource), redis.call('INCR', TURN), turn)
      end
      steps = steps + 1
      turn, resource = next_queue(resources)
    end
    more = turn and 1 or 0
  end
  claims[#claims + 1] = {found, more}
end

local to_fill = {}
local function look_if_to_fill(queue)
  if redis.call('HEXISTS', FULL, queue) == 0 or redis.call('ZCARD', ages_key(queue)) * 2 >= limit then return end
  if redis.call('SET', P .. ':filling:' .. queue, 1, 'NX', 'PX', lease_ms) then to_fill[#to_fill + 1] = queue end
end
for queue in pairs(touched) do look_if_to_fill(queue) end

local scan = 0
if ask[12] > 0 and redis.call('SET', P .. ':scan', 1, 'NX', 'PX', ask[12]) then
  scan = 1
  for _, queue in ipairs(redis.call('HKEYS', FULL)) do
    if not touched[queue] then look_if_to_fill(queue) end
  end
end

for _, notice in ipairs(ask[13]) do redis.call('XADD', NOTICES, 'MAXLEN', '~', 4096, '*', 'm', notice) end
local wakes = {}
for queue in pairs(woken) do
  if redis.call('ZCARD', ready_key(queue)) > 0 then wakes[#wakes + 1] = queue end
end
if #wakes > 0 then redis.call('XADD', NOTICES, 'MAXLEN', '~', 4096, '*', 'w', cmsgpack.pack(wakes)) end

local next_at = -1
for _, key in ipairs({LEASES, DELAYED}) do
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if first[1] and (next_at < 0 or tonumber(first[2]) < next_at) then next_at = tonumber(first[2]) end
end

local depths = {}
if ask[14] > 0 then
  for _, queue in ipairs(redis.call('SMEMBERS', QUEUES)) do
    local first = redis.call('ZRANGE', ages_key(queue), 0, 0, 'WITHSCORES')
    if first[1] then
      depths[#depths + 1] = {queue, redis.call('ZCARD', ages_key(queue)), tonumber(first[2])}
    end
  end
end

-- A user of an older line of docs/queues.md may not know how many there are, and everything else goes on.
local all = redis.pcall('HLEN', TASKS)
local places = {type(all) == 'number' and all or -1, redis.call('ZCARD', LEASES), redis.call('ZCARD', DELAYED)}

return cmsgpack.pack({
  claims, anew, turned_away, to_fill, scan, next_at < 0 and -1 or math.max(next_at - now, 0), depths, places,
})
