#define FFI_SCOPE "COMET"
#define FFI_LIB "libcomet.so.1"
/* Generated from ffi/src by `make headers`; do not edit. */

/**
 * What became of a call: below 0 it failed. Numbers never change; new ones may be added.
 */
typedef enum {
  /**
   * Done.
   */
  COMET_RESULT_OK = 0,
  /**
   * Done as far as it can be now: the daemon is away, and the message waits in the spool until it is back. Only with
   * COMET_FLAG_SPOOL, or `spool` in the DSN.
   */
  COMET_RESULT_SPOOLED = 1,
  /**
   * A pointer is NULL that may not be.
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
   * Flags that this version does not know.
   */
  COMET_RESULT_FLAGS = -4,
  /**
   * A length that no memory has.
   */
  COMET_RESULT_LENGTH = -5,
  /**
   * No connection to the daemon; nothing was published.
   */
  COMET_RESULT_CONNECT = -6,
  /**
   * Not done in time; what was sent may be published all the same.
   */
  COMET_RESULT_TIMEOUT = -7,
  /**
   * The connection was lost before the acknowledgement; what was sent may be published or not.
   */
  COMET_RESULT_UNKNOWN = -8,
  /**
   * The daemon refused; not published.
   */
  COMET_RESULT_REFUSED = -9,
  /**
   * The answer is none of a Comet daemon, or it is too long.
   */
  COMET_RESULT_PROTOCOL = -10,
  /**
   * The file could not be touched or written.
   */
  COMET_RESULT_FILE = -11,
  /**
   * A fault in this library. The handle is as new, the process goes on; please report it.
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
   * Return when the message is handed to the system; comet_flush tells whether all went well.
   */
  COMET_FLAG_NO_ACK = 1,
  /**
   * Gather messages and send them 64 KiB at a time, the rest with comet_flush. Implies COMET_FLAG_NO_ACK.
   */
  COMET_FLAG_BUFFER = 2,
  /**
   * While the daemon is away, leave the message in the spool, a directory beside its socket, and return
   * COMET_RESULT_SPOOLED: the daemon publishes it when it is back, once and in order. `spool=off` in the DSN forbids it.
   */
  COMET_FLAG_SPOOL = 4,
} comet_flag;

/**
 * A connection to the daemon, with what it needs to come back. Opaque.
 */
typedef struct comet_t comet_t;

/**
 * What is known of a message that was published.
 */
typedef struct {
  /**
   * Its number: microseconds since the Unix epoch. 0 if the acknowledgement was not waited for, or it is in the spool.
   */
  uint64_t id;
} comet_receipt;

/**
 * The version of the interface: major << 16 | minor. A program made for another major version must not go on.
 */
uint32_t comet_abi_version(void);

/**
 * The version of the library as text, such as "0.1.0". Static.
 */
const char *comet_version(void);

/**
 * Makes a handle of its own for `dsn` and stores it in `out`: `unix:[PATH][?timeout_ms=500&dir=/dev/shm&key=PREFIX&spool=on]`,
 * with %XX for special characters; NULL or "" mean the defaults. Does not connect yet. Threads may share the handle.
 *
 * PATH: the daemon's socket; else COMET_SOCKET, else /run/comet/comet.sock, else $XDG_RUNTIME_DIR/comet.sock.
 * timeout_ms: the longest that a call may take, 1 to 60000. dir: where comet_touch and comet_write put files.
 * key: gives every message an idempotency key that starts so; a publish whose acknowledgement was lost is then
 * repeated, and still published once. spool: "on", "off", or the directory where all messages wait while the daemon is
 * away, as with COMET_FLAG_SPOOL; else PATH with ".spool" in place of ".sock", for calls with that flag.
 *
 * # Safety
 * `dsn` is NULL or ends with a NUL; `out` takes a pointer. The caller owns the handle and passes it to comet_close.
 */
comet_result comet_open(const char *dsn,
                        comet_t **out);

/**
 * Like comet_open, but one handle per process, thread and dsn, with its connection: for PHP, where it survives
 * requests. It belongs to the library, which keeps it until the thread ends; comet_close leaves it alone.
 *
 * # Safety
 * As for comet_open; the handle may be used as long as the thread that asked for it lives.
 */
comet_result comet_popen(const char *dsn, comet_t **out);

/**
 * Publishes `len` bytes, any bytes, to the channel. Without flags returns when the daemon has the message and fills
 * `out` with its receipt; `out` may be NULL. COMET_RESULT_TIMEOUT and COMET_RESULT_UNKNOWN leave open whether the
 * message was published. `flags`: 0 or comet_flag values; with COMET_FLAG_SPOOL all three ways in which a daemon can be
 * away end in COMET_RESULT_SPOOLED.
 *
 * # Safety
 * `c` is a live handle; `channel` and `data` point to so many bytes (`data` may be NULL if there are none);
 * `out` is NULL or takes a receipt.
 */
comet_result comet_publish(comet_t *c,
                           const char *channel,
                           size_t channel_len,
                           const char *data,
                           size_t len,
                           uint32_t flags,
                           comet_receipt *out);

/**
 * Like comet_publish, with a label and an idempotency key for the message. Either may be NULL, or empty, for none.
 *
 * name: the message's label, up to 128 bytes of text without control characters. key: up to 128 bytes of text; what is
 * published again with the key that it had, on the same channel and within ten minutes, is not published twice, and
 * the receipt has the first number. It takes the place of the key that the handle's DSN would give.
 *
 * # Safety
 * As for comet_publish; `name` and `key` are NULL or point to so many bytes.
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
 * Sends what COMET_FLAG_BUFFER has gathered and waits until all that was published on this handle is acknowledged.
 * Tells the first error that no call has told yet, or COMET_RESULT_SPOOLED when messages that nobody waited for went to
 * the spool. Whatever the result, nothing is left in the buffer.
 *
 * # Safety
 * `c` is a live handle.
 */
comet_result comet_flush(comet_t *c);

/**
 * Stores the id of the newest message of all channels in `out`. A page that reads its state after this call, and whose
 * browser subscribes from this id, misses nothing. Buffered messages are published first.
 *
 * # Safety
 * `c` is a live handle; `out` takes a number.
 */
comet_result comet_cursor(comet_t *c, uint64_t *out);

/**
 * Stores in `out` what the daemon keeps of some channels after the message `since`, oldest first, as JSON text that ends
 * with a NUL: `{"ok":true,"cursor":"ID","gap":false,"messages":[{"channel":"news","id":1,"name":"","data":"hi"}]}`.
 * `gap` is true when older messages after `since` are gone. Data that is no UTF-8 is base64, and `"encoding":"base64"`
 * says so. `channels`: 1 to 100 names with commas in between. `since`: an id, or 0 for all that is kept. `len` may be
 * NULL; it gets the length of the text in bytes. Buffered messages are published first.
 *
 * # Safety
 * `c` is a live handle; `channels` points to so many bytes; `out` takes a pointer. The text belongs to the library, and
 * lives until this thread's next comet_history.
 */
comet_result comet_history(comet_t *c,
                           const char *channels,
                           size_t channels_len,
                           uint64_t since,
                           const char **out,
                           size_t *len);

/**
 * Publishes by touching the channel's file in the handle's directory, as `touch DIR/CHANNEL.comet` does. Needs no
 * daemon now. Touches in quick succession may become one message.
 *
 * # Safety
 * `c` is a live handle; `channel` points to so many bytes.
 */
comet_result comet_touch(comet_t *c, const char *channel, size_t channel_len);

/**
 * Publishes by replacing the channel's file in the handle's directory: no reader ever sees half of the data. Needs no
 * daemon now. Writes in quick succession may become one message, the last.
 *
 * # Safety
 * As for comet_publish.
 */
comet_result comet_write(comet_t *c, const char *channel, size_t channel_len, const char *data, size_t len);

/**
 * Why the last call that failed on this handle in this thread did, or "". NULL asks for the thread's last failed call,
 * which is how to learn why comet_open failed. Borrowed until the thread's next call that fails.
 */
const char *comet_error(const comet_t *c);

/**
 * Sends what is buffered, without telling how that went (comet_flush does), and frees the handle. NULL is allowed.
 *
 * # Safety
 * `c` is NULL or a handle of comet_open or comet_popen; one of comet_open is not used again.
 */
void comet_close(comet_t *c);
