-- What callers need: tokens, and the view that lists are read from.

create table api_token (
    id            text   collate "C" primary key,
    secret_sha256 text   not null,
    subject       text   not null,
    scopes        text   not null,
    created_ms    bigint not null,
    expires_ms    bigint not null,
    revoked_ms    bigint
);
comment on column api_token.secret_sha256 is 'a plain hash is enough: the secret is 256 random bits';
comment on column api_token.subject is 'whose token it is; a customer''s subject is the owner of their orders';
comment on column api_token.scopes is 'labels separated by spaces';
comment on column api_token.revoked_ms is 'revoked tokens stay, so that an emptied table never opens the door again';

create table saga_view (
    saga               uuid   primary key,
    version            bigint not null,
    definition         text   collate "C" not null,
    definition_version bigint not null,
    number             text   collate "C" not null,
    owner              text   collate "C",
    lane               text   not null,
    status             text   collate "C" not null,
    phase              text   collate "C" not null,
    outcome            text,
    reason             text,
    view               text   not null,
    search             text   not null,
    order_saga         uuid,
    started_ms         bigint not null,
    updated_ms         bigint not null,
    ended_ms           bigint
);
comment on table saga_view is 'one row per saga, written by the projector and by nobody else; it can be rebuilt from the sagas';
comment on column saga_view.version is 'the saga''s version shown; an older one never replaces a newer one';
comment on column saga_view.status is 'what the customer sees; named by the definition';
comment on column saga_view.view is 'the definition''s `view`, JSON';
comment on column saga_view.search is 'the pairs in saga_search, JSON; tells the projector which of them are stale';
comment on column saga_view.order_saga is 'the saga that this one belongs to';

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
    name       text   collate "C" not null,
    value      text   collate "C" not null,
    started_ms bigint not null,
    saga       uuid   not null,
    primary key (name, value, started_ms, saga)
);
comment on table saga_search is 'the definition''s `search` attributes; a list has one row per element';

create table projection (
    shard bigint primary key,
    seq   bigint not null
) with (fillfactor = 10);
comment on table projection is 'how far the projector has followed each shard''s events; moves with the view';
