-- The history. Times are Unix seconds, durations seconds. A new version adds columns, it does not rename.
CREATE TABLE IF NOT EXISTS loads (
  id       INTEGER PRIMARY KEY AUTOINCREMENT,
  at       REAL NOT NULL,
  model    TEXT NOT NULL,
  revision TEXT NOT NULL,
  kind     TEXT NOT NULL,          -- start, wake
  seconds  REAL NOT NULL,
  phases   TEXT NOT NULL,          -- JSON: {"loading weights": 12.5, ...}
  cause    TEXT                    -- why it failed; NULL if it did not
);
CREATE INDEX IF NOT EXISTS loads_by_model ON loads (model, revision, id);

CREATE TABLE IF NOT EXISTS exchanges (
  id                INTEGER PRIMARY KEY AUTOINCREMENT,
  at                REAL NOT NULL,
  model             TEXT NOT NULL,
  path              TEXT NOT NULL,
  status            INTEGER NOT NULL,
  stream            INTEGER NOT NULL,
  outcome           TEXT NOT NULL,
  waited            REAL NOT NULL,
  loaded            REAL NOT NULL,
  first_byte        REAL,
  total             REAL NOT NULL,
  prompt_tokens     INTEGER,
  completion_tokens INTEGER,
  cached_tokens     INTEGER,
  tokens_per_s      REAL,
  estimated         INTEGER NOT NULL,
  request_id        TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS exchanges_by_model ON exchanges (model, id);
