-- A user has one sign-in link that was not used: a new one takes its place in one statement, without a lock that is
-- held over round trips.
set local role hookledger_worker;
delete from magic_links earlier using magic_links later
where later.organization_id = earlier.organization_id and later.user_id = earlier.user_id
  and later.used_at is null and earlier.used_at is null
  and (later.expires_at, later.token_sha256) > (earlier.expires_at, earlier.token_sha256);
reset role;
create unique index magic_links_open on magic_links (organization_id, user_id) where used_at is null;
grant update (token_sha256, expires_at) on magic_links to hookledger_worker;
