// SPDX-License-Identifier: Apache-2.0
//! Every bound on a queue, body, frame, output or wait, named and in one place.

use std::time::Duration;

/// Largest body of an HTTP request, in bytes; beyond it the answer is 413.
pub const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Most calls in one JSON-RPC batch.
pub const BATCH_CALLS_MAX: usize = 100;
/// Most values in one MCP message, whole and nested ones counted alike: what reads it holds each of them several times.
pub const MCP_VALUES_MAX: usize = 50_000;
/// Longest id of an MCP request that can be taken back by it, as JSON, in bytes.
pub const MCP_REQUEST_ID_BYTES_MAX: usize = 256;
/// Most characters of a name that nobody knows which an error repeats.
pub const UNKNOWN_NAME_CHARS_MAX: usize = 64;
/// Longest name of a sandbox or namespace, in characters.
pub const NAME_CHARS_MAX: usize = 63;

/// Largest frame between the server and an agent, in bytes after the length field.
///
/// A body of [`BODY_BYTES_MAX`] grows at most sixfold when JSON escapes it, and is sent in one frame.
pub const FRAME_BYTES_MAX: usize = 6 * BODY_BYTES_MAX + 64 * 1024;
/// Most bytes of output in one frame.
pub const OUTPUT_CHUNK_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of output, both streams together, that the answer to one call carries; the rest is counted and left out.
pub const OUTPUT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most lines of output that the answer to one call carries; the rest is counted and left out.
pub const OUTPUT_LINES_MAX: usize = 500_000;
/// Most bytes of output kept between two executions of a kernel (threads and children that print late).
pub const BACKGROUND_OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// Most connections that an agent serves at once.
pub const AGENT_CONNECTIONS_MAX: usize = 64;
/// Largest configuration that an agent reads when it starts, in bytes: JSON makes six bytes of one at most.
pub const AGENT_CONFIG_BYTES_MAX: usize = 6 * SPEC_ENVS_BYTES_MAX + 64 * 1024;
/// Largest frame that an agent reads before the secret was presented, in bytes after the length field.
pub const GREETING_BYTES_MAX: usize = 4096;
/// How long the rest of a frame may take once an agent has read its length.
pub const FRAME_WAIT: Duration = Duration::from_secs(30);
/// Most chunks of output that wait for an agent's connection; then the program that writes is slowed down.
pub const AGENT_OUTBOX_CHUNKS_MAX: usize = 4;
/// Bytes of output that an agent may hold for a slow connection before it stops listening to a kernel's driver.
pub const OUTPUT_PENDING_BYTES_MAX: usize = 1024 * 1024;
/// Most pairs of pipes that an agent keeps open for processes that outlive their command.
pub const LEFT_BEHIND_PIPES_MAX: usize = 128;
/// Largest payload of a frame from a kernel's driver, in bytes.
pub const DRIVER_FRAME_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of an interpreter's output that are quoted when it does not get ready.
pub const COMPLAINT_BYTES_MAX: usize = 2048;
/// Highest number of a user or group inside a sandbox.
pub const USER_NUMBER_MAX: u32 = 65_535;
/// Longest text that names the user and group of a sandbox's programs, in bytes.
pub const USER_BYTES_MAX: usize = 256;
/// Largest `/etc/passwd` and `/etc/group` of an image that are read, in bytes.
pub const ACCOUNTS_BYTES_MAX: usize = 1024 * 1024;
/// Longest line of them that is looked at, in bytes.
pub const ACCOUNT_LINE_BYTES_MAX: usize = 64 * 1024;
/// Most supplementary groups of a user.
pub const USER_GROUPS_MAX: usize = 256;
/// Longest path that is made as a working directory or taken as a home, in bytes.
pub const DIRECTORY_PATH_BYTES_MAX: usize = 4095;
/// Most symbolic links on the way to a working directory.
pub const DIRECTORY_LINKS_MAX: usize = 40;
/// Most interpreters of interpreters that are looked at to say why a program does not start.
pub const INTERPRETERS_DEPTH_MAX: usize = 4;
/// Most bytes of a program's head that are looked at for that.
pub const PROGRAM_HEAD_BYTES_MAX: usize = 4096;
/// How long a new process may take until it executes its program.
pub const PROCESS_START_WAIT: Duration = Duration::from_secs(10);
/// How long killing a process tree may take before it is given up on and reported.
pub const KILL_WAIT: Duration = Duration::from_secs(5);
/// How long the end of a process tree is awaited before it is scanned for survivors again.
pub const KILL_ROUND_WAIT: Duration = Duration::from_millis(20);
/// How long an agent waits before it accepts again after the kernel refused it a connection.
pub const ACCEPT_RETRY_WAIT: Duration = Duration::from_millis(100);
/// Most executions that wait for one kernel; one more is refused.
pub const KERNEL_QUEUE_MAX: usize = 32;
/// Most arguments of a command.
pub const COMMAND_ARGS_MAX: usize = 4096;
/// How long an agent waits for the greeting on a new connection.
pub const GREETING_WAIT: Duration = Duration::from_secs(5);
/// How long an interrupted execution may go on before it is killed.
pub const INTERRUPT_GRACE: Duration = Duration::from_secs(2);
/// How long an interpreter may take until it is ready for its first execution.
pub const KERNEL_START_WAIT: Duration = Duration::from_secs(60);
/// How long a finished command's output is awaited while a process that it left behind holds the pipe.
pub const COMMAND_DRAIN_WAIT: Duration = Duration::from_millis(100);
/// Longest timeout a client can ask for; longer ones are shortened to it.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How long `sandbox.start` may take when the client names no deadline.
pub const START_WAIT: Duration = Duration::from_secs(180);
/// How long the walls of one sandbox may take to stand and its agent to answer.
pub const WALLS_WAIT: Duration = Duration::from_secs(30);
/// How long it may take to find out, one by one, what this host can do for a wall.
pub const PROBE_WAIT: Duration = Duration::from_secs(10);
/// How long one sandbox may take to stop before its processes are given up on and reported.
pub const STOP_WAIT: Duration = Duration::from_secs(20);
/// Most sandboxes that run at once on one server.
pub const SANDBOXES_MAX: usize = 4000;
/// Most names of ended sandboxes that a server remembers; the oldest go first.
pub const ENDED_NAMES_MAX: usize = 100_000;

/// Memory of a sandbox when the client names none, in MiB.
pub const MEMORY_MIB_DEFAULT: u32 = 512;
/// Least memory a sandbox can have, in MiB: the agent and one interpreter fit.
pub const MEMORY_MIB_MIN: u32 = 32;
/// Processes and threads that a sandbox may have when the client does not say.
pub const PIDS_DEFAULT: u32 = 512;
/// Least processes and threads a sandbox can have: the agent, its supervisors and an interpreter fit.
pub const PIDS_MIN: u32 = 32;
/// Most processes and threads a sandbox can have.
pub const PIDS_MAX: u32 = 4096;
/// File descriptors that one process in a sandbox may have when the client does not say.
pub const OPEN_FILES_DEFAULT: u32 = 65_536;
/// Least file descriptors of one process in a sandbox: the agent and its connections fit.
pub const OPEN_FILES_MIN: u32 = 512;
/// Most file descriptors of one process in a sandbox.
pub const OPEN_FILES_MAX: u32 = 1_048_576;
/// Size of `/dev/shm` in a sandbox when the client does not say, in MiB; what is in it counts against the sandbox's
/// memory. `/tmp` is a part of the writable layer and as large as that.
pub const SHM_MIB_DEFAULT: u32 = 64;
/// Share of a busy disk that a sandbox has when the client does not say.
pub const IO_WEIGHT_DEFAULT: u32 = 100;
/// Least share of a busy disk.
pub const IO_WEIGHT_MIN: u32 = 1;
/// Largest share of a busy disk: what every version of the kernel's interface takes.
pub const IO_WEIGHT_MAX: u32 = 1000;
/// How long the kernel may take to count the processes of a killed sandbox out of its cgroup.
pub const CGROUP_EMPTY_WAIT: Duration = Duration::from_millis(500);
/// How often a cgroup is looked through for processes to move, some of which fork meanwhile.
pub const CGROUP_MOVE_ROUNDS_MAX: u32 = 16;
/// Most environment variables that a client can set for a sandbox.
pub const ENVS_MAX: usize = 1024;
/// Most bytes of all environment variables of a sandbox together.
pub const ENVS_BYTES_MAX: usize = 256 * 1024;
/// Most bytes of the environment that a sandbox begins with, an image's and a client's together.
pub const SPEC_ENVS_BYTES_MAX: usize = 512 * 1024;
/// Longest environment variable with its name, in bytes: the kernel starts no program with a longer one.
pub const ENV_BYTES_MAX: usize = 128 * 1024 - 2;
/// What a sandbox may write when the client does not say, in MiB.
pub const DISK_MIB_DEFAULT: u32 = 4096;
/// Least that a sandbox can be allowed to write, in MiB: the kernel sets room for what it is about to do aside first.
pub const DISK_MIB_MIN: u32 = 16;
/// Most that a client can ask for, in MiB; the volume that it is on is the nearer bound.
pub const DISK_MIB_MAX: u32 = 1 << 24;
/// Least size of the volume that sandboxes write on, in MiB.
pub const DISK_STORE_MIB_MIN: u64 = 512;
/// Share of what is free on the disk of the home that the volume leaves to all others, as a divisor.
pub const DISK_STORE_FREE_SHARE: u64 = 4;
/// How long making the volume may take.
pub const MAKE_DISK_STORE_WAIT: Duration = Duration::from_secs(60);
/// Most quota groups of removed sandboxes that are looked after at once.
pub const DISK_STORE_GROUPS_AT_ONCE_MAX: usize = 64;
/// Most host directories in one sandbox.
pub const VOLUMES_MAX: usize = 16;
/// Time between two samples of a sandbox's processor use.
pub const CPU_SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Most entries of a writable layer that are counted for its size.
pub const DISK_SCAN_ENTRIES_MAX: usize = 1_000_000;

/// Most HTTP connections that are open at once; for one more, one that waits for its client is closed.
pub const HTTP_CONNECTIONS_MAX: usize = 4096;
/// Share of the process's file descriptors that HTTP connections may use, as a divisor.
pub const HTTP_CONNECTIONS_SHARE: usize = 4;
/// Largest head of a request, and largest piece of a body read at once, in bytes; a larger head is answered with 431.
pub const HTTP_HEAD_BYTES_MAX: usize = 32 * 1024;
/// Most header lines of a request; more are answered with 431.
pub const HTTP_HEADERS_MAX: usize = 64;
/// How long a connection may take to send the head of its next request, idle time included.
pub const HTTP_HEAD_WAIT: Duration = Duration::from_secs(120);
/// How long an answer may make no progress before its connection is closed.
pub const HTTP_STALL_WAIT: Duration = Duration::from_secs(30);
/// How long a client may take for a whole answer.
pub const HTTP_ANSWER_WAIT: Duration = Duration::from_secs(300);
/// Bytes of a body or output that need no share of the server's memory for such.
pub const MEMORY_SHARE_FREE_BYTES: usize = 64 * 1024;
/// Steps in which such a share grows, in bytes.
pub const MEMORY_SHARE_STEP_BYTES: usize = 256 * 1024;
/// Most bytes of large request bodies that the server holds at once, of all clients together.
pub const BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Most bytes of large outputs that the server collects at once, of all calls together.
pub const OUTPUTS_BYTES_MAX: usize = 512 * 1024 * 1024;
/// What a line of output costs beside its bytes, in bytes.
pub const OUTPUT_LINE_BYTES: usize = 64;
/// Most bytes of large answers that the server holds at once until their clients have taken them.
pub const ANSWERS_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Most bytes that JSON makes of one byte of output.
pub const JSON_BYTES_PER_BYTE: usize = 6;
/// How long a large answer waits for room.
pub const ANSWER_ROOM_WAIT: Duration = Duration::from_secs(30);
/// Most large bodies and answers that are read or written as JSON at once.
pub const HEAVY_WORK_MAX: usize = 1;
/// How long a large body or answer waits until it is its turn to be read or written.
pub const HEAVY_WORK_WAIT: Duration = Duration::from_secs(60);
/// Most requests of one caller that are served at once.
pub const CALLER_REQUESTS_MAX: usize = HTTP_CONNECTIONS_MAX / 2;
/// Most characters of one part of an error in the log.
pub const LOGGED_CHARS_MAX: usize = 1000;
/// Most characters of a text of the client's that an error repeats.
pub const QUOTED_CHARS_MAX: usize = 200;
/// Most bytes of output that a tool's result for a model carries; more is cut, and says so.
pub const MCP_OUTPUT_BYTES_MAX: usize = 1024 * 1024;
/// Most lines of output that a tool's result for a model carries.
pub const MCP_OUTPUT_LINES_MAX: usize = 50_000;
/// Most items of a list in the configuration of a sandbox.
pub const CONFIG_ITEMS_MAX: usize = 1024;
/// Longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Most idempotency keys that are remembered for one caller; of those whose call has ended the oldest go first.
pub const IDEMPOTENCY_KEYS_MAX: usize = 1024;
/// Most bytes of answers that are remembered for one caller.
pub const IDEMPOTENCY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most calls with idempotency keys that are under way or remembered, of all callers together.
pub const IDEMPOTENCY_ALL_KEYS_MAX: usize = 16 * 1024;
/// Most bytes of answers that are remembered, of all callers together.
pub const IDEMPOTENCY_ALL_BYTES_MAX: usize = 256 * 1024 * 1024;
/// How long an answer is remembered for its idempotency key.
pub const IDEMPOTENCY_KEEP: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the body of a request may take to arrive.
pub const HTTP_BODY_WAIT: Duration = Duration::from_secs(60);
/// Most bytes of a body that is too large which are read and thrown away, so that its sender gets to see the answer.
pub const HTTP_BODY_DRAIN_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long open connections get to finish when the server ends, after all sandboxes have.
pub const HTTP_CLOSE_WAIT: Duration = Duration::from_secs(2);
/// How long the server waits after a failed accept (no descriptor left) before the next one.
pub const HTTP_ACCEPT_RETRY_WAIT: Duration = Duration::from_millis(100);
/// What a refused client is told to wait when the server is full, in seconds.
pub const RETRY_AFTER_SECONDS: u32 = 1;
/// Most calls that are under way in one sandbox; further ones wait. Less than [`AGENT_CONNECTIONS_MAX`], so that the
/// agent has room for connections that are just being closed.
pub const SANDBOX_CALLS_MAX: usize = 48;
/// Most connections to one agent that are kept open between calls.
pub const AGENT_IDLE_CONNECTIONS_MAX: usize = 4;
/// How long a call whose connection broke waits to learn how its sandbox ended.
pub const ENDED_NOTICE_WAIT: Duration = Duration::from_secs(1);
/// Share of [`OUTPUT_BYTES_MAX`] and [`OUTPUT_LINES_MAX`] that one stream leaves to the other, as a divisor.
pub const OUTPUT_RESERVE_SHARE: usize = 32;
/// Shortest span of time over which processor use is told.
pub const CPU_SPAN_MIN: Duration = Duration::from_millis(100);
/// How long the counted size of a writable layer is good for.
pub const DISK_SAMPLE_KEEP: Duration = Duration::from_secs(2);
/// How long a question for metrics waits for sizes that are being counted.
pub const DISK_WAIT: Duration = Duration::from_secs(2);
/// Most writable layers that are counted at once.
pub const DISK_SCANS_MAX: usize = 2;

/// Longest key that is looked at, in bytes; a real one is shorter.
pub const KEY_BYTES_MAX: usize = 512;
/// How long a key works after it expired, for clocks that differ.
pub const KEY_EXPIRY_LEEWAY: Duration = Duration::from_secs(60);
/// Lifetime of a key when none is named.
pub const KEY_LIFETIME_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest lifetime of a key: a hundred years of 365 days.
pub const KEY_LIFETIME_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// How exactly the last use of a key is told.
pub const KEY_USE_RESOLUTION: Duration = Duration::from_secs(60);
/// Most uses of keys that wait to be written down; one more is written down with a later use.
pub const KEY_USES_WAITING_MAX: usize = 256;
/// How long a writer of the store waits for another process that is writing.
pub const STORE_BUSY_WAIT: Duration = Duration::from_secs(5);
/// How long a request waits for the store, which others only keep busy while they repair it after a crash.
pub const STORE_READ_WAIT: Duration = Duration::from_millis(500);
/// How long the rest of a refused request may take to arrive, so that its sender gets to see the answer.
pub const HTTP_REFUSED_BODY_WAIT: Duration = Duration::from_secs(2);

/// Largest blob of an image in the store, in bytes: a layer as it is sent.
pub const IMAGE_BLOB_BYTES_MAX: u64 = 32 * 1024 * 1024 * 1024;
/// Largest manifest, index or configuration of an image, in bytes: what is read into memory as a whole.
pub const IMAGE_JSON_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Most layers of an image.
pub const IMAGE_LAYERS_MAX: usize = 128;
/// Most images that the store has a record of.
pub const IMAGE_RECORDS_MAX: usize = 10_000;
/// Largest record of an image, in bytes.
pub const IMAGE_RECORD_BYTES_MAX: u64 = 256 * 1024;
/// Longest reference of an image, in bytes.
pub const IMAGE_REFERENCE_BYTES_MAX: usize = 1024;
/// Fewest characters of a digest that stand for an image.
pub const IMAGE_ID_PREFIX_CHARS_MIN: usize = 4;
/// Most blobs and layers that one lease of the store holds.
pub const IMAGE_LEASE_PINS_MAX: usize = 65_536;
/// How long the store's lock is awaited, which others hold for single steps only.
pub const IMAGE_LOCK_WAIT: Duration = Duration::from_secs(30);
/// How long a blob or a layer is awaited that somebody else is fetching or unpacking.
pub const IMAGE_WORK_WAIT: Duration = Duration::from_secs(30 * 60);
/// Largest archive of images that is loaded, in bytes, unpacked from its compression.
pub const ARCHIVE_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;
/// Most bytes that one byte of a compressed archive may become, on the average of what was read so far.
pub const ARCHIVE_RATIO_MAX: u64 = 200;
/// Bytes that a compressed archive may become whatever their ratio.
pub const ARCHIVE_RATIO_FREE_BYTES: u64 = 32 * 1024 * 1024;
/// Memory that a compressed archive may ask for to look back into, as a power of two in bytes.
pub const ARCHIVE_ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Most files in an archive of images.
pub const ARCHIVE_ENTRIES_MAX: usize = 65_536;
/// Longest name of a file in an archive of images that is looked up, in bytes; longer ones are nothing of ours.
pub const ARCHIVE_NAME_BYTES_MAX: usize = 512;
/// Most bytes of records that describe one file of an archive of images.
pub const ARCHIVE_PAX_BYTES_MAX: u64 = 64 * 1024;
/// Most images in one archive.
pub const ARCHIVE_IMAGES_MAX: usize = 128;
/// Most indexes in an archive that lead one to the other before there is an image.
pub const ARCHIVE_INDEX_DEPTH_MAX: usize = 3;
/// Most bytes that all layers of one image unpack to: contents with their holes, and what describes the entries.
pub const IMAGE_UNPACKED_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;
/// Most entries of all layers of one image, directories included that only the names of others imply.
pub const IMAGE_ENTRIES_MAX: u64 = 800_000;
/// Largest blob of a layer, as it is transferred, in bytes.
pub const LAYER_BLOB_BYTES_MAX: u64 = 32 * 1024 * 1024 * 1024;
/// Most bytes that one byte of a compressed layer may become, on the average of what was read so far.
pub const LAYER_RATIO_MAX: u64 = 200;
/// Bytes that a compressed layer may become whatever their ratio: small ones full of zeros are common.
pub const LAYER_RATIO_FREE_BYTES: u64 = 32 * 1024 * 1024;
/// Memory that a zstd layer may ask for to look back into, as a power of two in bytes; zstd's own tools take as much.
pub const LAYER_ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Largest file of a layer, holes included, in bytes: the last size that every tar header can say.
pub const LAYER_FILE_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024 - 1;
/// Longest path in a layer, in bytes: what the kernel takes, without its final NUL.
pub const LAYER_PATH_BYTES_MAX: usize = 4095;
/// Longest name of one file in a layer, in bytes.
pub const LAYER_NAME_BYTES_MAX: usize = 255;
/// Most names in one path of a layer.
pub const LAYER_DEPTH_MAX: usize = 256;
/// Longest target of a symlink in a layer, in bytes.
pub const LAYER_TARGET_BYTES_MAX: usize = 4095;
/// Largest user or group id of a file in a layer: a sandbox has the ids from 0 to this one.
pub const LAYER_ID_MAX: u64 = 65_535;
/// Most bytes of PAX records that describe one entry.
pub const LAYER_PAX_BYTES_MAX: u64 = 1024 * 1024;
/// Most extended attributes of one entry.
pub const LAYER_XATTRS_MAX: usize = 64;
/// Largest value of an extended attribute, in bytes.
pub const LAYER_XATTR_BYTES_MAX: usize = 64 * 1024;
/// Most pieces of data in one sparse file.
pub const LAYER_SPARSE_PIECES_MAX: usize = 65_536;
/// Most bytes of names of directories and whiteouts that are kept until the end of a layer.
pub const LAYER_NAMES_KEPT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most zeros that may follow the end of a layer's archive, in bytes.
pub const LAYER_TRAILING_BYTES_MAX: u64 = 1024 * 1024;
/// Bytes of a layer that are read at once.
pub const LAYER_CHUNK_BYTES: usize = 256 * 1024;
/// Longest registry (host and port) in an image reference, in characters.
pub const REFERENCE_REGISTRY_CHARS_MAX: usize = 255;
/// Longest repository in an image reference, in characters.
pub const REFERENCE_REPOSITORY_CHARS_MAX: usize = 255;
/// Longest tag in an image reference, in characters.
pub const REFERENCE_TAG_CHARS_MAX: usize = 128;
/// Largest manifest or index of an image, in bytes; the rest of a longer one is not read.
pub const MANIFEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest configuration of an image, in bytes.
pub const IMAGE_CONFIG_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Most bytes of an image that are downloaded: all layers together, as the registry has them.
pub const IMAGE_DOWNLOAD_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;
/// Most images in one index.
pub const INDEX_ENTRIES_MAX: usize = 1024;
/// Most indexes that lead one to the other before there is an image.
pub const INDEX_DEPTH_MAX: usize = 3;
/// Most redirects that one request to a registry follows.
pub const REDIRECTS_MAX: usize = 5;
/// Most mirrors of one registry that are tried.
pub const MIRRORS_MAX: usize = 8;
/// Most manifests and blobs that one registry client asks for at once; further ones wait.
pub const REGISTRY_OPERATIONS_MAX: usize = 6;
/// How often a request to a registry is attempted while it makes no progress.
pub const REGISTRY_ATTEMPTS_MAX: u32 = 5;
/// Least bytes of a blob after which the attempts are counted anew.
pub const REGISTRY_ATTEMPTS_RESET_BYTES: u64 = 1024 * 1024;
/// How long the second attempt waits; each further one waits twice as long, up to [`REGISTRY_BACKOFF_MAX`].
pub const REGISTRY_BACKOFF: Duration = Duration::from_millis(500);
/// Longest wait before an attempt that the registry did not ask for.
pub const REGISTRY_BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Longest wait that a registry can ask for with Retry-After; one that asks for more is given up on.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// How long connecting to a registry may take, TLS included.
pub const REGISTRY_CONNECT_WAIT: Duration = Duration::from_secs(10);
/// How long a registry may take to begin its answer.
pub const REGISTRY_ANSWER_WAIT: Duration = Duration::from_secs(30);
/// How long a whole manifest or token may take to arrive.
pub const REGISTRY_DOCUMENT_WAIT: Duration = Duration::from_secs(60);
/// Time in which a blob must make a progress of [`PROGRESS_BYTES_MIN`], or its connection is given up on.
pub const PROGRESS_WINDOW: Duration = Duration::from_secs(30);
/// Least bytes of a blob that must arrive in each [`PROGRESS_WINDOW`].
pub const PROGRESS_BYTES_MIN: u64 = 64 * 1024;
/// Largest answer of a token server, in bytes.
pub const TOKEN_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Most tokens, and most loopback registries' protocols, that are remembered; beyond it all are asked for anew.
pub const TOKENS_MAX: usize = 1024;
/// How long a token is used whose server does not say for how long it may be.
pub const TOKEN_LIFE_DEFAULT: Duration = Duration::from_secs(60);
/// Longest time a token is used, whatever its server says.
pub const TOKEN_LIFE_MAX: Duration = Duration::from_secs(60 * 60);
/// Largest file of credentials that is read, in bytes.
pub const CREDENTIALS_BYTES_MAX: u64 = 1024 * 1024;
/// Most characters of a stranger's text that an error about an image repeats.
pub const QUOTE_CHARS_MAX: usize = 160;
/// Most images that one process pulls at once; one more is refused.
pub const PULLS_MAX: usize = 32;
/// Most layers of one image that are fetched at once.
pub const PULL_LAYERS_AT_ONCE_MAX: usize = 3;
/// Most layers of one image that are unpacked at once: each takes a processor, and one of zstd memory to look back into.
pub const PULL_LAYERS_UNPACKED_AT_ONCE_MAX: usize = 2;

/// Longest name of a release of Debian, in characters.
pub const SUITE_CHARS_MAX: usize = 32;
/// Longest address of a mirror of Debian's archive, in bytes.
pub const MIRROR_BYTES_MAX: usize = 1024;
/// How long a base image may take to be built.
pub const BASE_BUILD_WAIT: Duration = Duration::from_secs(60 * 60);
/// Longest line that is read of what a program writes while a base image is built, in bytes; the rest is left out.
pub const BASE_LINE_BYTES_MAX: usize = 512;
/// Most lines of such a program that are quoted when it fails.
pub const BASE_LINES_QUOTED_MAX: usize = 15;
/// Most bytes of such a program's answer that are kept.
pub const BASE_OUTPUT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Longest line that `msb registry login` takes for a password, in bytes; tokens of registries have a few thousand.
pub const PASSWORD_BYTES_MAX: u64 = 64 * 1024;

/// Longest domain name, in characters.
pub const DOMAIN_CHARS_MAX: usize = 253;
/// Longest part of a domain name, in characters.
pub const LABEL_CHARS_MAX: usize = 63;
/// Most entries of a sandbox's allow-list.
pub const NETWORK_ALLOWED_MAX: usize = 64;
/// Most ports that one sandbox publishes.
pub const PORTS_MAX: usize = 32;
/// Most connections through the published ports of one sandbox at once; one more waits.
pub const PORT_CONNECTIONS_MAX: usize = 256;
/// How long the program behind a published port may take to accept a connection.
pub const PORT_CONNECT_WAIT: Duration = Duration::from_secs(10);
/// How long a published port waits before it accepts again after the kernel refused it a connection.
pub const PORT_RETRY_WAIT: Duration = Duration::from_millis(100);
/// Most connections that one sandbox has with the internet at once; one more is refused.
pub const NETWORK_FLOWS_MAX: u32 = 1024;
/// Most connections that all sandboxes of a server have with the internet at once.
pub const NETWORK_FLOWS_ALL_MAX: u32 = 32_768;
/// Most jobs that wait for the thread that enters network namespaces.
pub const NETWORK_VISITS_MAX: usize = 1024;
/// How long the kernel may take to answer a message about networks.
pub const NETLINK_WAIT: Duration = Duration::from_secs(5);
/// Longest message of the kernel about networks, in bytes.
pub const NETLINK_BYTES_MAX: usize = 64 * 1024;
/// How long `nft` may take.
pub const NFT_WAIT: Duration = Duration::from_secs(10);
/// Most addresses of the host of which sandboxes are told at once that they cannot reach them; of others the host does not
/// answer.
pub const OWN_ADDRESSES_MAX: usize = 4096;
/// How often the way through the host's own firewall is tried when the server starts.
pub const FORWARD_PROBES_MAX: u32 = 5;
/// How long one such try may take.
pub const FORWARD_PROBE_WAIT: Duration = Duration::from_millis(100);
/// Most lines a second about one sandbox's refused packets in the log; ten at once.
pub const REFUSALS_LOGGED_MAX: u32 = 2;
/// Most addresses that are open at once because a name server's answer named them, for one sandbox.
pub const PINS_MAX: usize = 1024;
/// Most addresses of one name server's answer that are told and opened.
pub const PINS_PER_ANSWER_MAX: usize = 32;
/// Longest time that an answer of a name server may be kept by a sandbox.
pub const NAME_LIFE_MAX: Duration = Duration::from_secs(300);
/// How much longer than the answer lives its addresses stay open.
pub const PIN_GRACE: Duration = Duration::from_secs(60);
/// Most questions for names that are under way at once, for all sandboxes; one more is not answered.
pub const NAME_QUERIES_MAX: usize = 512;
/// Most questions for names that are under way at once, for one sandbox.
pub const NAME_QUERIES_PER_SANDBOX_MAX: usize = 32;
/// Most connections that ask for names at once, for all sandboxes.
pub const NAME_CONNECTIONS_MAX: usize = 128;
/// Most connections that ask for names at once, for one sandbox.
pub const NAME_CONNECTIONS_PER_SANDBOX_MAX: usize = 4;
/// How long a connection that asks for names may be silent.
pub const NAME_CONNECTION_WAIT: Duration = Duration::from_secs(10);
/// Most questions on one such connection.
pub const NAME_CONNECTION_QUERIES_MAX: usize = 100;
/// Largest question for a name, in bytes.
pub const NAME_QUERY_BYTES_MAX: usize = 512;
/// Largest answer to one that is read, in bytes.
pub const NAME_ANSWER_BYTES_MAX: usize = 16 * 1024;
/// Largest answer to one in a datagram that is sent, in bytes, where the asker does not say that it takes more.
pub const NAME_DATAGRAM_BYTES: usize = 512;
/// Largest one where it does.
pub const NAME_DATAGRAM_BYTES_MAX: usize = 1232;
/// How long one name server of the host may take to answer.
pub const NAME_SERVER_WAIT: Duration = Duration::from_secs(3);
/// Most name servers of the host that are asked, one after the other.
pub const NAME_SERVERS_MAX: usize = 3;
/// Largest `/etc/resolv.conf` of the host that is read, in bytes.
pub const RESOLV_CONF_BYTES_MAX: u64 = 64 * 1024;
/// Most names that lead one to the other before there is an address.
pub const NAME_CHAIN_MAX: usize = 16;
