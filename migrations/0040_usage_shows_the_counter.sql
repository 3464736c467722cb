-- People are told what the limit counts, not what the read model has counted so far.
grant select on monthly_counters to hookledger_runtime;
