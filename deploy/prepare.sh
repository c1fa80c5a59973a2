#!/bin/sh
# Makes a new system ready, once: tables, and the first tokens, without which no server listens to other machines.
# Run again, it changes nothing. /tokens/prometheus may read metrics; /tokens/operator may do everything an operator does.
set -eu
endstate migrate
[ -s /tokens/operator ] && [ -s /tokens/prometheus ] && exit 0

# A server that only this container reaches asks for no token.
endstate serve --roles gateway --listen 127.0.0.1:7600 --data /tmp/prepare &
server=$!
until endstate check --only ready >/dev/null 2>&1; do
    kill -0 "$server" 2>/dev/null || { echo "the server has ended" >&2; exit 1; }
    sleep 1
done
umask 077
endstate token create --subject operator --expires-days 365 --scope orders:read --scope orders:write \
    --scope sagas:read --scope sagas:operate --scope sagas:force --scope definitions:read --scope definitions:write \
    --scope ledger:read --scope ledger:write --scope events:write --scope audit:read --scope tokens:write \
    --scope role:operator >/tokens/operator.new
mv /tokens/operator.new /tokens/operator
# From now on the server wants one.
export ENDSTATE_TOKEN_FILE=/tokens/operator
endstate token create --subject prometheus --expires-days 365 --scope audit:read >/tokens/prometheus.new
# Prometheus runs under an id of its own.
chmod 644 /tokens/prometheus.new
mv /tokens/prometheus.new /tokens/prometheus
kill -TERM "$server"
wait "$server"
