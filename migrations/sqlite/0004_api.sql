-- What callers need: tokens, and the view that lists are read from.

create table api_token (
    -- The public part of a token; the secret part is never stored.
    id            text    primary key,
    -- A plain hash is enough: the secret is 256 random bits.
    secret_sha256 text    not null,
    -- Whose token it is; a customer's subject is the owner of their orders.
    subject       text    not null,
    -- Labels separated by spaces.
    scopes        text    not null,
    created_ms    integer not null,
    expires_ms    integer not null,
    -- Revoked tokens stay, so that an emptied table never opens the door again.
    revoked_ms    integer
) strict;

create table saga_view (
    -- One row per saga, written by the projector and by nobody else; it can be rebuilt from the sagas.
    saga       blob    primary key,
    -- The saga's version shown; an older one never replaces a newer one.
    version    integer not null,
    definition text    not null,
    definition_version integer not null,
    number     text    not null,
    owner      text,
    lane       text    not null,
    -- What the customer sees; named by the definition.
    status     text    not null,
    phase      text    not null,
    outcome    text,
    reason     text,
    -- The definition's `view`, JSON.
    view       text    not null,
    -- The pairs in saga_search, JSON; tells the projector which of them are stale.
    search     text    not null,
    -- The saga that this one belongs to.
    order_saga blob,
    started_ms integer not null,
    updated_ms integer not null,
    ended_ms   integer
) strict, without rowid;

-- Every list is read newest first, by one leading filter.
create index saga_view_started on saga_view (started_ms, saga);
create index saga_view_definition on saga_view (definition, started_ms, saga);
create index saga_view_owner on saga_view (owner, started_ms, saga) where owner is not null;
create index saga_view_status on saga_view (status, started_ms, saga);
create index saga_view_number on saga_view (number);
-- Open ones only: ended ones are nearly all.
create index saga_view_phase on saga_view (phase, started_ms, saga) where phase <> 'ended';
create index saga_view_order on saga_view (order_saga) where order_saga is not null;

create table saga_search (
    -- The definition's `search` attributes; a list has one row per element.
    name       text    not null,
    value      text    not null,
    started_ms integer not null,
    saga       blob    not null,
    primary key (name, value, started_ms, saga)
) strict, without rowid;

create table projection (
    -- How far the projector has followed each shard's events. Moves in the same transaction as the view.
    shard integer primary key,
    seq   integer not null
) strict;
