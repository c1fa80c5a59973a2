-- Which store this is. Two stores must not meet in one environment on one broker: each claims its environment there with
-- this id. A backup keeps it, being the same store; so does a copy, which must not be used beside the one it was made of.

insert into system (name, value) values ('store', gen_random_uuid()::text) on conflict (name) do nothing;
comment on table system is 'settings that are fixed when the store is made: environment, partitions, its own id (`store`), and the cluster of the brokers that it goes with (`kafka_cluster`), which `endstate broker adopt` changes';
