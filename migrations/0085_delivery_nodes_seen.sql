-- Super admins see how many nodes deliver.
grant select on delivery_nodes to hookledger_runtime;
