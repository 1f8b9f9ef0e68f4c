"""What the engine carries out as one step each, in Lua.

Whoever writes is looked at first: it must hold the lease. And it must go on directly after the entry that it wrote
last, so a hole that a failover of the engine has left is found before anything stands behind it.
"""

from __future__ import annotations

from typing import Final

_LEADS: Final = """
local holder = redis.call('GET', KEYS[1])
if holder ~= ARGV[1] then return {'leader', holder or ''} end
"""

_LAST: Final = """
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
local last = newest[1] and newest[1][1] or ''
"""

APPEND: Final = f"""{_LEADS}{_LAST}
if last ~= ARGV[2] then return {{'fence', last}} end
redis.call('XADD', KEYS[2], ARGV[3], unpack(ARGV, 4))
return {{'ok', ARGV[3]}}
"""
"""KEYS: leader, tape. ARGV: the lease's token, the id that was written last, the new id, fields and values."""

CLEAR: Final = f"""{_LEADS}
redis.call('DEL', KEYS[2], KEYS[3])
return {{'ok', ''}}
"""
"""KEYS: leader, tape, state. ARGV: the lease's token."""

SETTLE: Final = f"""{_LEADS}{_LAST}
if last ~= ARGV[3] then return {{'fence', last}} end
redis.call('HSET', KEYS[3], 'epoch', ARGV[2], 'at', ARGV[3], 'floor', ARGV[4], 'data', ARGV[6])
if ARGV[5] ~= '' then redis.call('XTRIM', KEYS[2], 'MINID', ARGV[5]) end
return {{'ok', ''}}
"""
"""KEYS: leader, tape, state. ARGV: the lease's token, epoch, the id of the newest entry, after which the state is that,
the head before the oldest entry that stays, that entry's id, the state."""

HOLD: Final = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return {holder} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {ARGV[1]}
"""
"""KEYS: leader. ARGV: the lease's token, ms."""

RELEASE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return {}
"""
"""KEYS: leader. ARGV: the lease's token."""

PAGE: Final = """
return {redis.call('HGET', KEYS[2], 'floor') or '', redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])}
"""
"""KEYS: tape, state. ARGV: from which id, how many."""

REPORT: Final = f"""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local was = redis.call('HGET', KEYS[3], ARGV[1]) or ''
if ARGV[1] ~= '' then redis.call('HSET', KEYS[3], ARGV[1], string.format('%.0f', now) .. ' ' .. ARGV[2]) end
local all = redis.call('HGETALL', KEYS[3])
for at = 1, #all, 2 do
    if now - tonumber(string.match(all[at + 1], '^%d+')) > 60000 then redis.call('HDEL', KEYS[3], all[at]) end
end
{_LAST}
local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)
return {{string.format('%.0f', now), redis.call('GET', KEYS[1]) or '', redis.call('HGET', KEYS[4], 'epoch') or '', last,
    first[1] and first[1][1] or '', redis.call('XLEN', KEYS[2]), redis.call('HGETALL', KEYS[3]), was}}
"""
"""KEYS: leader, tape, nodes, state. ARGV: the node's name ("" to ask only), what it says of itself."""

LEAVE: Final = """
redis.call('HDEL', KEYS[1], ARGV[1])
return {}
"""
"""KEYS: nodes. ARGV: the node's name."""

HEED: Final = """
redis.call('XTRIM', KEYS[1], 'MINID', ARGV[1])
return {}
"""
"""KEYS: up. ARGV: the id of the first message that stays."""
