-- Participants: the ledger, tokens, what was answered before, and open calls to outside parties.

create table account (
    -- Asset, owner and kind; contra accounts name their shard, because an account is written by one shard only.
    id              text    primary key,
    shard           integer not null,
    -- What it counts (`points`, `stock:SKU`, `money:CNY`). Per asset, the posted balances of all accounts sum to zero.
    asset           text    not null,
    -- Whose it is; empty for contra accounts.
    owner           text    not null,
    kind            text    not null,
    -- Only where value enters the system, and for what users owe.
    may_be_negative integer not null check (may_be_negative in (0, 1)),
    -- Credits minus debits of all posted transfers.
    posted          integer not null check (abs(posted) <= 9007199254740991),
    -- Sum of pending debits not yet resolved.
    pending         integer not null check (pending >= 0),
    -- The last net under the decisions: what is held or sold is there.
    constraint account_covers check (may_be_negative = 1 or posted - pending >= 0)
) strict, without rowid;

create index account_asset on account (asset, kind);

create table transfer (
    -- The effect's id, so that the same effect is the same transfer.
    id        text    primary key,
    shard     integer not null,
    kind      text    not null check (kind in ('pending', 'post', 'void', 'direct')),
    debit     text    not null,
    credit    text    not null check (credit <> debit),
    amount    integer not null check (amount between 1 and 9007199254740991),
    -- The pending transfer that this one resolves.
    refers_to text    check ((kind in ('post', 'void')) = (refers_to is not null)),
    time_ms   integer not null
) strict, without rowid;

-- A pending transfer is posted or voided once.
create unique index transfer_resolves on transfer (refers_to) where refers_to is not null;

create index transfer_credit on transfer (credit, kind);

create trigger transfer_is_immutable before update on transfer
begin
    select raise(abort, 'a transfer never changes');
end;

create table token (
    -- Kind and number, such as `coupon:C-1`.
    id     text    primary key,
    shard  integer not null,
    owner  text    not null,
    state  text    not null check (state in ('free', 'held', 'used', 'void')),
    -- The effect that holds or used it.
    holder text    check ((state in ('held', 'used')) = (holder is not null))
) strict, without rowid;

create table effect (
    -- The memory of a participant: told again or asked, it answers the same. Outlives the longest saga.
    id          text    primary key,
    shard       integer not null,
    lane        text    not null,
    participant text    not null,
    action      text    not null,
    -- Hash of the command's body; the same id with another is a conflict. Null for a tombstone.
    body        integer,
    state       text    not null check (state in ('held', 'confirmed', 'done', 'released', 'refused',
                                                  'released_before', 'calling', 'unknown')),
    -- Code of a refusal.
    code        text,
    -- JSON: data of a done reply.
    data        text,
    -- The effect it confirms or undoes.
    of_id       text,
    -- What stands behind it in the ledger; open_id is the pending transfer that waits to be resolved.
    debit       text,
    credit      text,
    amount      integer,
    open_id     text,
    -- The token behind it.
    token       text,
    time_ms     integer not null,
    -- When a hold was made, or its saga last asked whether it is still wanted.
    asked_ms    integer not null
) strict, without rowid;

create index effect_held on effect (shard, asked_ms) where state = 'held';

create table call (
    -- The intent to call an outside party, written before the call; gone once the answer is booked.
    id      text    primary key,
    shard   integer not null,
    lane    text    not null,
    -- JSON of the command.
    command text    not null,
    time_ms integer not null
) strict, without rowid;

create index call_shard on call (shard, time_ms);

create table operation (
    -- Operators' changes of stock, coupons and points, line by line; the id is the operator's.
    operation    text    not null,
    line         integer not null,
    shard        integer not null,
    -- PARTICIPANT.ACTION
    action       text    not null,
    -- JSON: what was asked, and what came of it.
    with_json    text    not null,
    verdict      text    not null,
    verdict_json text    not null,
    time_ms      integer not null,
    primary key (operation, line)
) strict, without rowid;
