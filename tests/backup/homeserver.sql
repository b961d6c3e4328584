-- What matters of Synapse's schema (94), and what is difficult for a dump: another schema, large values, sequences.
CREATE TABLE schema_version (lock char(1) NOT NULL DEFAULT 'X' UNIQUE, version int NOT NULL, upgraded bool NOT NULL);
INSERT INTO schema_version VALUES ('X', 94, true);
CREATE TABLE schema_compat_version (lock char(1) NOT NULL DEFAULT 'X' UNIQUE, compat_version int NOT NULL);
INSERT INTO schema_compat_version VALUES ('X', 84);
CREATE TABLE background_updates (update_name text NOT NULL, progress_json text NOT NULL, depends_on text, ordering int NOT NULL DEFAULT 0);
CREATE TABLE stream_positions (stream_name text NOT NULL, instance_name text NOT NULL, stream_id bigint NOT NULL);
INSERT INTO stream_positions VALUES ('receipts', 'master', 17);

CREATE SEQUENCE events_stream_seq;
CREATE TABLE events (stream_ordering bigint PRIMARY KEY DEFAULT nextval('events_stream_seq'), event_id text NOT NULL UNIQUE, room_id text NOT NULL, depth bigint NOT NULL);
CREATE TABLE event_json (event_id text NOT NULL UNIQUE, room_id text NOT NULL, json text NOT NULL);
INSERT INTO events (event_id, room_id, depth) SELECT '$' || md5(i::text), '!room:example.org', i FROM generate_series(1, 2000) AS i;
INSERT INTO event_json SELECT event_id, room_id, '{"content": {"body": "' || repeat(md5(depth::text), 4) || E'\\n\\u00fc\u00e9\U0001F510"}}' FROM events;
SELECT setval('events_stream_seq', 2345);

CREATE TABLE users (name text PRIMARY KEY, password_hash text);
INSERT INTO users VALUES ('@alice:example.org', '$2b$12$abc'), ('@bob:example.org', NULL);
CREATE TABLE e2e_one_time_keys_json (user_id text NOT NULL, device_id text NOT NULL, key_id text NOT NULL, ts_added_ms bigint NOT NULL, key_json text NOT NULL);
INSERT INTO e2e_one_time_keys_json SELECT '@alice:example.org', 'DEVICE', 'AAAA' || i, i, '{"key": "one-time-secret-' || i || '"}' FROM generate_series(1, 50) AS i;
CREATE TABLE e2e_device_keys_json (user_id text NOT NULL, device_id text NOT NULL, key_json text NOT NULL);
INSERT INTO e2e_device_keys_json VALUES ('@alice:example.org', 'DEVICE', '{"keys": {}}');

CREATE TABLE local_media_repository (media_id text UNIQUE, media_type text, media_length int, created_ts bigint, upload_name text, user_id text, quarantined_by text, url_cache text, last_access_ts bigint, safe_from_quarantine bool NOT NULL DEFAULT false, authenticated bool NOT NULL DEFAULT false, sha256 text);
CREATE TABLE local_media_repository_thumbnails (media_id text, thumbnail_width int, thumbnail_height int, thumbnail_type text, thumbnail_method text, thumbnail_length int);
CREATE TABLE remote_media_cache (media_origin text, media_id text, media_type text, created_ts bigint, upload_name text, media_length int, filesystem_id text, last_access_ts bigint, quarantined_by text, authenticated bool NOT NULL DEFAULT false, sha256 text);
CREATE TABLE remote_media_cache_thumbnails (media_origin text, media_id text, thumbnail_width int, thumbnail_height int, thumbnail_method text, thumbnail_type text, thumbnail_length int, filesystem_id text);

CREATE SCHEMA "Oth""er schema";
CREATE TABLE "Oth""er schema"."odd ""table"" 'name" ("co l" text, "ü" jsonb, raw bytea);
INSERT INTO "Oth""er schema"."odd ""table"" 'name" VALUES (E'a\tb\nc\\d', '{"k": "\u00fc"}', '\x00ff'), (NULL, NULL, NULL);
CREATE TABLE "Oth""er schema".e2e_one_time_keys_json (user_id text);
INSERT INTO "Oth""er schema".e2e_one_time_keys_json VALUES ('@one-time-secret:d');
