//! Statements of the view. Lists differ only in their leading filter, so that each is an index scan newest first;
//! elsewhere, `cross join` keeps the given row outermost.

use endstate_outbox::{Kind, Statement};

macro_rules! columns {
    () => {
        "v.saga, v.version, v.definition, v.definition_version, v.number, v.owner, v.lane, v.status, v.phase, \
         v.outcome, v.reason, v.view, v.search, v.order_saga, v.started_ms, v.updated_ms, v.ended_ms"
    };
}

/// Follows the events of all shards: seq has no gaps, so a page is a range.
pub(super) static CHANGED: Statement = Statement {
    name: "view.read_changed",
    columns: &[Kind::Int, Kind::Int, Kind::Int],
    // A promoted standby may lack what was followed, and give the numbers again: what the store knows to be followed counts.
    sql: "with r(shard, seq, page) as ({rows}) select e.shard, e.seq, e.saga, e.time_ms from (select r.shard, r.page, \
          {min|least}(r.seq, coalesce(p.seq, r.seq)) as seq from r left join projection p on p.shard = r.shard) f \
          cross join event e where e.shard = f.shard and e.seq > f.seq and e.seq <= f.seq + f.page \
          order by e.shard, e.seq",
};

/// Sagas as they are now, and what the view has of them.
pub(super) static SAGAS: Statement = Statement {
    name: "view.read_sagas",
    columns: &[Kind::Id],
    sql: "with r(id) as ({rows}) select s.id, s.version, s.state, v.version, v.search, v.started_ms from r \
          {cross join|join} saga s on s.id = r.id left join saga_view v on v.saga = s.id",
};

/// How long their rows are: of a long text, the store reads only its head for that.
pub(super) static LENGTHS: Statement = Statement {
    name: "view.read_lengths",
    columns: &[Kind::Id],
    sql: "with r(id) as ({rows}) select s.id, octet_length(s.state) from r {cross join|join} saga s on s.id = r.id",
};

/// A page of all sagas, for a rebuild.
pub(super) static ALL_SAGAS: Statement = Statement {
    name: "view.read_all_sagas",
    columns: &[Kind::Id, Kind::Int],
    sql: "with r(id, page) as ({rows}) select s.id from r cross join saga s where s.id > r.id order by s.id \
          limit (select page from r)",
};

/// Writes rows; a newer version wins.
pub(super) static UPSERT: Statement = Statement {
    name: "view.upsert",
    columns: &[
        Kind::Id,
        Kind::Int,
        Kind::Text,
        Kind::Int,
        Kind::Text,
        Kind::Text,
        Kind::Text,
        Kind::Text,
        Kind::Text,
        Kind::Text,
        Kind::Text,
        Kind::Text,
        Kind::Text,
        Kind::Id,
        Kind::Int,
        Kind::Int,
        Kind::Int,
    ],
    sql: "with r(saga, version, definition, definition_version, number, owner, lane, status, phase, outcome, reason, \
          view, search, order_saga, started_ms, updated_ms, ended_ms) as ({rows}) \
          insert into saga_view (saga, version, definition, definition_version, number, owner, lane, status, phase, \
          outcome, reason, view, search, order_saga, started_ms, updated_ms, ended_ms) \
          select saga, version, definition, definition_version, number, owner, lane, status, phase, outcome, reason, \
          view, search, order_saga, started_ms, updated_ms, ended_ms from r where true \
          on conflict (saga) do update set version = excluded.version, status = excluded.status, \
          phase = excluded.phase, outcome = excluded.outcome, reason = excluded.reason, view = excluded.view, \
          search = excluded.search, updated_ms = excluded.updated_ms, ended_ms = excluded.ended_ms \
          where excluded.version >= saga_view.version",
};

/// Adds search attributes.
pub(super) static ADD_SEARCH: Statement = Statement {
    name: "view.add_search",
    columns: &[Kind::Text, Kind::Text, Kind::Int, Kind::Id],
    sql: "with r(name, value, started_ms, saga) as ({rows}) insert into saga_search (name, value, started_ms, saga) \
          select name, value, started_ms, saga from r where true on conflict do nothing",
};

/// Removes search attributes that no longer hold.
pub(crate) static DROP_SEARCH: Statement = Statement {
    name: "view.drop_search",
    columns: &[Kind::Text, Kind::Text, Kind::Int, Kind::Id],
    sql: "with r(name, value, started_ms, saga) as ({rows}) delete from saga_search \
          where (name, value, started_ms, saga) in (select name, value, started_ms, saga from r)",
};

/// Makes the rows of shards that were never followed.
pub(super) static BEGIN: Statement = Statement {
    name: "view.begin_positions",
    columns: &[Kind::Int],
    sql: "with r(shard) as ({rows}) insert into projection (shard, seq) select shard, 0 from r where true \
          on conflict (shard) do nothing",
};

/// Saves how far the projector is. Must hit every row: otherwise another one has gone on, and what this one is about to
/// write is the difference to a view that is gone.
pub(super) static SAVE: Statement = Statement {
    name: "view.save_position",
    columns: &[Kind::Int, Kind::Int, Kind::Int],
    sql: "with r(shard, before, seq) as ({rows}) update projection set seq = r.seq from r \
          where projection.shard = r.shard and projection.seq = r.before",
};

/// Where the projector stopped, per shard given.
pub(super) static POSITIONS: Statement = Statement {
    name: "view.read_positions",
    columns: &[Kind::Int],
    sql: "with r(shard) as ({rows}) select r.shard, coalesce(p.seq, 0) from r left join projection p on p.shard = r.shard",
};

/// One row.
pub(super) static ONE: Statement = Statement {
    name: "view.read_one",
    columns: &[Kind::Id],
    sql: concat!(
        "with r(saga) as ({rows}) select ",
        columns!(),
        " from r cross join saga_view v where v.saga = r.saga"
    ),
};

/// The sagas that belong to one.
pub(super) static OF_ORDER: Statement = Statement {
    name: "view.read_linked",
    columns: &[Kind::Id],
    sql: concat!(
        "with r(saga) as ({rows}) select ",
        columns!(),
        " from r cross join saga_view v where v.order_saga = r.saga order by v.started_ms, v.saga limit 100"
    ),
};

/// Whether a row passes a filter, which may be absent.
macro_rules! passes {
    ($column:literal) => {
        concat!("((select ", $column, " from r) is null or v.", $column, " = (select ", $column, " from r))")
    };
}

// What is given are single values, not a relation to join: only then does PostgreSQL know that the index has the list's order,
// and reads a page instead of all to sort them. The filters stand in a `case`, which it takes for a half: seen one by one, absent
// ones look as if nothing passed them, and as if reading all were cheaper. And the probe for a search attribute is a
// value, not an `exists`, which it may answer by reading all that have the attribute.
macro_rules! lists {
    ($($statement:ident $name:literal $from:literal $key:literal $lead:literal;)*) => {
        $(
            pub(super) static $statement: Statement = Statement {
                name: $name,
                columns: &[
                    Kind::Text, Kind::Text, Kind::Text, Kind::Text, Kind::Text, Kind::Text, Kind::Text, Kind::Text,
                    Kind::Text, Kind::Int, Kind::Int, Kind::Id, Kind::Int,
                ],
                sql: concat!(
                    "with r(definition, status, phase, outcome, owner, number, number_end, search_name, search_value, ",
                    "since_ms, at_ms, at_id, page) as ({rows}) select ", columns!(),
                    " from ", $from, " where ", $lead,
                    " and ", $key, ".started_ms >= (select since_ms from r)",
                    " and (", $key, ".started_ms, ", $key, ".saga) < ((select at_ms from r), (select at_id from r))",
                    " and case when ", passes!("definition"), " and ", passes!("status"), " and ", passes!("phase"),
                    " and ", passes!("outcome"), " and ", passes!("owner"),
                    " and ((select number from r) is null",
                    " or (v.number >= (select number from r) and v.number < (select number_end from r)))",
                    " and ((select search_name from r) is null or (select 1 from saga_search x",
                    " where x.name = (select search_name from r) and x.value = (select search_value from r)",
                    " and x.started_ms = v.started_ms and x.saga = v.saga) is not null) then true else false end",
                    " order by ", $key, ".started_ms desc, ", $key, ".saga desc limit (select page from r)"
                ),
            };
        )*
    };
}

lists! {
    BY_NOTHING    "view.list"               "saga_view v" "v" "true";
    BY_DEFINITION "view.list_by_definition" "saga_view v" "v" "v.definition = (select definition from r)";
    BY_STATUS     "view.list_by_status"     "saga_view v" "v" "v.status = (select status from r)";
    BY_OPEN_PHASE "view.list_by_phase"      "saga_view v" "v" "v.phase = (select phase from r) and v.phase <> 'ended'";
    BY_OWNER      "view.list_by_owner"      "saga_view v" "v" "v.owner = (select owner from r)";
    // The only one that sorts, and [`WITH_NUMBER`] has shown that there is little to sort.
    BY_NUMBER     "view.list_by_number"     "saga_view v" "v" "v.number >= (select number from r) and v.number < (select number_end from r)";
    // `limit 1` keeps PostgreSQL from joining in another order.
    BY_SEARCH     "view.list_by_search"
        "saga_search k cross join {saga_view v|lateral (select * from saga_view i where i.saga = k.saga limit 1) v}" "k"
        "k.name = (select search_name from r) and k.value = (select search_value from r) and v.saga = k.saga";
}

/// How many numbers begin with the prefix, or that there are more than asked for.
pub(super) static WITH_NUMBER: Statement = Statement {
    name: "view.count_numbers",
    columns: &[Kind::Text, Kind::Text, Kind::Int],
    sql: "with r(number, number_end, most) as ({rows}) select count(*) from (select 1 from saga_view v \
          where v.number >= (select number from r) and v.number < (select number_end from r) \
          limit (select most from r)) as found",
};

/// All of them, see [`endstate_outbox::statement`].
pub(crate) static STATEMENTS: &[&Statement] = &[
    &CHANGED,
    &SAGAS,
    &LENGTHS,
    &ALL_SAGAS,
    &UPSERT,
    &ADD_SEARCH,
    &DROP_SEARCH,
    &BEGIN,
    &SAVE,
    &POSITIONS,
    &ONE,
    &OF_ORDER,
    &BY_NOTHING,
    &BY_DEFINITION,
    &BY_STATUS,
    &BY_OPEN_PHASE,
    &BY_OWNER,
    &BY_NUMBER,
    &BY_SEARCH,
    &WITH_NUMBER,
];
