#!/bin/sh
# Makes a new system ready: tables, and the first tokens, without which no server listens to other machines. Run again, it
# does what is missing, also after a run that was cut off. /tokens/prometheus may read metrics; /tokens/operator may do
# everything an operator does.
set -eu
tokens=${TOKENS:-/tokens}
endstate migrate
[ -s "$tokens/operator" ] && [ -s "$tokens/prometheus" ] && exit 0

# A server that only this container reaches asks for no token as long as there is none.
endstate serve --roles gateway --listen 127.0.0.1:7600 --data /tmp/prepare &
server=$!
trap 'kill -TERM "$server" 2>/dev/null || true' EXIT
until endstate check --only ready >/dev/null 2>&1; do
    kill -0 "$server" 2>/dev/null || { echo "the server has ended" >&2; exit 1; }
    sleep 1
done
umask 077
if [ ! -s "$tokens/operator" ]; then
    # An earlier run may have made it and not put it in its place.
    [ -s "$tokens/operator.new" ] && ENDSTATE_TOKEN_FILE=$tokens/operator.new endstate token list >/dev/null 2>&1 ||
        endstate token create --subject operator --expires-days 365 --scope orders:read --scope orders:write \
            --scope sagas:read --scope sagas:operate --scope sagas:force --scope definitions:read \
            --scope definitions:write --scope ledger:read --scope ledger:write --scope events:write \
            --scope audit:read --scope tokens:write --scope role:operator >"$tokens/operator.new" || {
        echo "there are tokens, and $tokens/operator is none of them: put one with tokens:write there; if the only one" \
            "was lost with an earlier run, 'delete from api_token' in the database" >&2
        exit 1
    }
    mv "$tokens/operator.new" "$tokens/operator"
fi
# From now on the server wants one.
export ENDSTATE_TOKEN_FILE="$tokens/operator"
if [ ! -s "$tokens/prometheus" ]; then
    endstate token create --subject prometheus --expires-days 365 --scope audit:read >"$tokens/prometheus.new"
    # Prometheus runs under an id of its own.
    chmod 644 "$tokens/prometheus.new"
    mv "$tokens/prometheus.new" "$tokens/prometheus"
fi
kill -TERM "$server"
wait "$server"
