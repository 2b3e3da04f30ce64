#define FFI_SCOPE "COMET"
#define FFI_LIB "libcomet.so.1"
/* Generated from ffi/src by `make headers`; do not edit. */

/**
 * The result of a call. A negative value is a failure. The numbers never change; new ones may be added.
 */
typedef enum {
  /**
   * Success.
   */
  COMET_RESULT_OK = 0,
  /**
   * The daemon is away. The message waits in the spool, and the daemon publishes it when it is back. Only with
   * COMET_FLAG_SPOOL, or `spool` in the DSN.
   */
  COMET_RESULT_SPOOLED = 1,
  /**
   * A pointer is NULL where NULL is not allowed.
   */
  COMET_RESULT_NULL_PARAMETER = -1,
  /**
   * The DSN, or the path in COMET_SOCKET, breaks a rule.
   */
  COMET_RESULT_DSN = -2,
  /**
   * The channel name breaks a rule.
   */
  COMET_RESULT_CHANNEL = -3,
  /**
   * A flag is unknown to this version.
   */
  COMET_RESULT_FLAGS = -4,
  /**
   * A length is larger than any object can be.
   */
  COMET_RESULT_LENGTH = -5,
  /**
   * No connection to the daemon; nothing was published.
   */
  COMET_RESULT_CONNECT = -6,
  /**
   * Not done in time. A message that was sent may still have been published.
   */
  COMET_RESULT_TIMEOUT = -7,
  /**
   * The connection was lost before the acknowledgement. A message that was sent may or may not have been published.
   */
  COMET_RESULT_UNKNOWN = -8,
  /**
   * The daemon refused the message, and did not publish it.
   */
  COMET_RESULT_REFUSED = -9,
  /**
   * The answer does not come from a Comet daemon, or it is too long.
   */
  COMET_RESULT_PROTOCOL = -10,
  /**
   * The file could not be touched or written.
   */
  COMET_RESULT_FILE = -11,
  /**
   * A bug in this library; please report it. The process can go on, and the handle can be used again, as if new.
   */
  COMET_RESULT_PANIC = -12,
  /**
   * The event name breaks a rule.
   */
  COMET_RESULT_NAME = -13,
  /**
   * The idempotency key breaks a rule.
   */
  COMET_RESULT_KEY = -14,
} comet_result;

/**
 * Flags of comet_publish.
 */
typedef enum {
  /**
   * Return when the message is handed to the operating system. comet_flush reports whether all messages were published.
   */
  COMET_FLAG_NO_ACK = 1,
  /**
   * Collect messages and send them 64 KiB at a time; comet_flush sends the rest. Implies COMET_FLAG_NO_ACK.
   */
  COMET_FLAG_BUFFER = 2,
  /**
   * While the daemon is away, leave the message in the spool, a directory beside its socket, and return
   * COMET_RESULT_SPOOLED. When the daemon is back, it publishes the message, once and in order. `spool=off` in the DSN switches this flag off.
   */
  COMET_FLAG_SPOOL = 4,
} comet_flag;

/**
 * A connection to the daemon, with the options to connect again. Opaque.
 */
typedef struct comet_t comet_t;

/**
 * The receipt of a published message.
 */
typedef struct {
  /**
   * The message's id: microseconds since the Unix epoch. 0 if the call did not wait for the acknowledgement, or the message is in the spool.
   */
  uint64_t id;
} comet_receipt;

/**
 * The version of the loaded library's interface: major << 16 | minor. A program built for another major version must not go on.
 */
uint32_t comet_abi_version(void);

/**
 * The version of the library as text, such as "0.1.0". The text is static.
 */
const char *comet_version(void);

/**
 * Creates a new handle for `dsn` and stores it in `out`. The DSN is `unix:[PATH][?timeout_ms=500&dir=/dev/shm&key=PREFIX&spool=on]`,
 * with %XX for special characters; NULL or "" means the defaults. Does not connect yet. Threads may share the handle.
 *
 * PATH: the daemon's socket; else COMET_SOCKET, else /run/comet/comet.sock, else $XDG_RUNTIME_DIR/comet.sock.
 * timeout_ms: the longest time that a call may take, 1 to 60000. dir: the directory of comet_touch and comet_write.
 * key: gives every message an idempotency key with this prefix; a publish whose acknowledgement was lost is then
 * repeated, and still published once. spool: "on", or a directory: every call acts as with COMET_FLAG_SPOOL; "off": the flag is
 * ignored. Without a directory the spool is PATH with ".spool" in place of ".sock".
 *
 * # Safety
 * `dsn` is NULL or ends with a NUL; `out` points to room for a pointer. The caller owns the handle and passes it to comet_close.
 */
comet_result comet_open(const char *dsn,
                        comet_t **out);

/**
 * Like comet_open, but returns the same handle for each process, thread and dsn, so that its connection survives PHP
 * requests. The library owns the handle and keeps it until the thread ends; comet_close does not free it.
 *
 * # Safety
 * As for comet_open; the handle may be used as long as the thread that opened it lives.
 */
comet_result comet_popen(const char *dsn, comet_t **out);

/**
 * Publishes `len` bytes, any bytes, to the channel. `channel` may list up to 100 channels, separated by commas: one message, with
 * one id, for all of them. Without flags the call returns when the daemon has the message, and stores
 * the message's receipt in `out`, which may be NULL. After COMET_RESULT_TIMEOUT and COMET_RESULT_UNKNOWN the message may or may
 * not have been published. `flags`: 0 or comet_flag values. With COMET_FLAG_SPOOL the call returns COMET_RESULT_SPOOLED in
 * place of COMET_RESULT_CONNECT, COMET_RESULT_TIMEOUT and COMET_RESULT_UNKNOWN.
 *
 * # Safety
 * `c` is a live handle; `channel` and `data` point to as many bytes as their lengths say (`data` may be NULL if `len` is 0);
 * `out` is NULL or points to a receipt.
 */
comet_result comet_publish(comet_t *c,
                           const char *channel,
                           size_t channel_len,
                           const char *data,
                           size_t len,
                           uint32_t flags,
                           comet_receipt *out);

/**
 * Like comet_publish, with a label and an idempotency key for the message. NULL or an empty text means none.
 *
 * name: the message's label, up to 200 bytes of text without control characters. key: up to 128 bytes of text. When a message
 * with the same key was published on the same channel in the last ten minutes, nothing is published, and
 * the receipt has the id of the first message. The key replaces the key that the handle's DSN would give.
 *
 * # Safety
 * As for comet_publish; `name` and `key` are NULL or point to as many bytes as their lengths say.
 */
comet_result comet_publish_named(comet_t *c,
                                 const char *channel,
                                 size_t channel_len,
                                 const char *name,
                                 size_t name_len,
                                 const char *key,
                                 size_t key_len,
                                 const char *data,
                                 size_t len,
                                 uint32_t flags,
                                 comet_receipt *out);

/**
 * Sends the messages in the buffer (COMET_FLAG_BUFFER), and waits until all messages of this handle are acknowledged.
 * Returns the first error that no earlier call has returned, or COMET_RESULT_SPOOLED when messages without an awaited
 * acknowledgement went to the spool. The buffer is empty afterwards, whatever the result.
 *
 * # Safety
 * `c` is a live handle.
 */
comet_result comet_flush(comet_t *c);

/**
 * Stores the id of the newest message of all channels in `out`. Call it before reading the state of a page, and let the
 * browser subscribe from this id: then it misses no message. Buffered messages are published first.
 *
 * # Safety
 * `c` is a live handle; `out` points to room for a number.
 */
comet_result comet_cursor(comet_t *c, uint64_t *out);

/**
 * Stores in `out` the messages of some channels that the daemon keeps after the id `since`, oldest first, as JSON text that ends
 * with a NUL: `{"ok":true,"cursor":"ID","gap":false,"messages":[{"channel":"news","id":1,"name":"","data":"hi"}]}`.
 * `gap` is true when messages after `since` are no longer kept. Data that is not UTF-8 is base64, and `"encoding":"base64"`
 * says so. `channels`: 1 to 100 names, separated by commas. `since`: an id, or 0 for everything that is kept. `len` gets the
 * length of the text in bytes, and may be NULL. Buffered messages are published first.
 *
 * # Safety
 * `c` is a live handle; `channels` points to as many bytes as its length says; `out` points to room for a pointer. The library
 * owns the text, which is valid until this thread's next comet_history.
 */
comet_result comet_history(comet_t *c,
                           const char *channels,
                           size_t channels_len,
                           uint64_t since,
                           const char **out,
                           size_t *len);

/**
 * Publishes by touching the channel's file in the handle's directory, as `touch DIR/CHANNEL.comet` does. The daemon need not
 * run during the call. Touches in quick succession may become one message.
 *
 * # Safety
 * `c` is a live handle; `channel` points to as many bytes as its length says.
 */
comet_result comet_touch(comet_t *c,
                         const char *channel,
                         size_t channel_len);

/**
 * Publishes by replacing the channel's file in the handle's directory, so that no reader ever sees half of the data. The daemon
 * need not run during the call. Writes in quick succession may become one message, the last.
 *
 * # Safety
 * As for comet_publish.
 */
comet_result comet_write(comet_t *c,
                         const char *channel,
                         size_t channel_len,
                         const char *data,
                         size_t len);

/**
 * The reason why the last failed call on this handle in this thread failed, or "". NULL asks for the thread's last failed call on any
 * handle, for example after comet_open failed. The text is valid until the thread's next call that fails.
 */
const char *comet_error(const comet_t *c);

/**
 * Sends buffered messages without reporting errors (call comet_flush first for that), and frees the handle. NULL is allowed.
 *
 * # Safety
 * `c` is NULL or a handle of comet_open or comet_popen. A handle of comet_open must not be used afterwards.
 */
void comet_close(comet_t *c);
