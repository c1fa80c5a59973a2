-- Participants: the ledger, tokens, what was answered before, and open calls to outside parties.

create table account (
    id              text   collate "C" primary key,
    shard           bigint not null,
    asset           text   collate "C" not null,
    owner           text   not null,
    kind            text   collate "C" not null,
    may_be_negative bigint not null check (may_be_negative in (0, 1)),
    posted          bigint not null check (abs(posted) <= 9007199254740991),
    pending         bigint not null check (pending >= 0),
    -- The last net under the decisions: what is held or sold is there.
    constraint account_covers check (may_be_negative = 1 or posted - pending >= 0)
    -- Hot accounts are updated by every batch.
) with (fillfactor = 50);
comment on table account is 'asset, owner and kind; contra accounts name their shard, because an account is written by one shard only';
comment on column account.asset is 'what it counts; per asset, the posted balances of all accounts sum to zero';
comment on column account.owner is 'whose it is; empty for contra accounts';
comment on column account.may_be_negative is '1 only where value enters the system, and for what users owe';
comment on column account.posted is 'credits minus debits of all posted transfers';
comment on column account.pending is 'sum of pending debits not yet resolved';

create index account_asset on account (asset, kind);

create table transfer (
    id        text   collate "C" primary key,
    shard     bigint not null,
    kind      text   not null check (kind in ('pending', 'post', 'void', 'direct')),
    debit     text   collate "C" not null,
    credit    text   collate "C" not null check (credit <> debit),
    amount    bigint not null check (amount between 1 and 9007199254740991),
    refers_to text   collate "C" check ((kind in ('post', 'void')) = (refers_to is not null)),
    time_ms   bigint not null
);
comment on table transfer is 'immutable; the id is the effect''s, so that the same effect is the same transfer';
comment on column transfer.refers_to is 'the pending transfer that this one resolves';

-- A pending transfer is posted or voided once.
create unique index transfer_resolves on transfer (refers_to) where refers_to is not null;

create index transfer_credit on transfer (credit, kind);

create function transfer_is_immutable() returns trigger language plpgsql as $$
begin
    raise exception using errcode = 'restrict_violation', message = 'a transfer never changes';
end
$$;

create trigger transfer_is_immutable before update on transfer
    for each row execute function transfer_is_immutable();

create table token (
    id     text   collate "C" primary key,
    shard  bigint not null,
    owner  text   not null,
    state  text   not null check (state in ('free', 'held', 'used', 'void')),
    holder text   collate "C" check ((state in ('held', 'used')) = (holder is not null))
) with (fillfactor = 80);
comment on table token is 'kind and number, such as `coupon:C-1`';
comment on column token.holder is 'the effect that holds or used it';

create table effect (
    id          text   collate "C" primary key,
    shard       bigint not null,
    lane        text   not null,
    participant text   not null,
    action      text   not null,
    body        bigint,
    state       text   not null check (state in ('held', 'confirmed', 'done', 'released', 'refused',
                                                 'released_before', 'calling', 'unknown')),
    code        text,
    data        text,
    of_id       text   collate "C",
    debit       text,
    credit      text,
    amount      bigint,
    open_id     text,
    token       text,
    time_ms     bigint not null,
    asked_ms    bigint not null
) with (fillfactor = 80);
comment on table effect is 'the memory of a participant: told again or asked, it answers the same; outlives the longest saga';
comment on column effect.body is 'hash of the command''s body: the same id with another is a conflict; null for a tombstone';
comment on column effect.code is 'code of a refusal';
comment on column effect.data is 'JSON: data of a done reply';
comment on column effect.of_id is 'the effect it confirms or undoes';
comment on column effect.open_id is 'the pending transfer that waits to be resolved';
comment on column effect.token is 'the token behind it';
comment on column effect.asked_ms is 'when a hold was made, or its saga last asked whether it is still wanted';

create index effect_held on effect (shard, asked_ms) where state = 'held';

create table call (
    id      text   collate "C" primary key,
    shard   bigint not null,
    lane    text   not null,
    command text   not null,
    time_ms bigint not null
);
comment on table call is 'the intent to call an outside party, written before the call; gone once the answer is booked';

create index call_shard on call (shard, time_ms);

create table operation (
    operation    text   collate "C" not null,
    line         bigint not null,
    shard        bigint not null,
    action       text   not null,
    with_json    text   not null,
    verdict      text   not null,
    verdict_json text   not null,
    time_ms      bigint not null,
    primary key (operation, line)
);
comment on table operation is 'operators'' changes of stock, coupons and points, line by line; the id is the operator''s';
