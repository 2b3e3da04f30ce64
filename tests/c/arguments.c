/* Passes every kind of invalid argument and checks the errors. Arguments: DSN, directory of the DSN. */
#include <limits.h>

#include "check.h"

static void version(void) {
    CHECK(comet_abi_version() >> 16 == 1);
    CHECK(strchr(comet_version(), '.') != NULL);
}

static void dsn(void) {
    comet_t *untouched = (comet_t *)8, *c = untouched;
    CHECK(strcmp(comet_error(NULL), "") == 0);
    CHECK(comet_open("tcp:127.0.0.1:2061", &c) == COMET_RESULT_DSN);
    CHECK(c == untouched);
    CHECK(strncmp(comet_error(NULL), "DSN must start with \"unix:\"", 27) == 0);
    CHECK(comet_popen("unix:?timeout_ms=soon", &c) == COMET_RESULT_DSN);
    CHECK(c == untouched);
    CHECK(strstr(comet_error(NULL), "timeout_ms must be a number from 1 to 60000, not \"soon\"") != NULL);
    CHECK(comet_open("unix:\xff", &c) == COMET_RESULT_DSN);
    CHECK(comet_open(NULL, &c) == COMET_RESULT_OK);
    comet_close(c);
    CHECK(comet_open("", &c) == COMET_RESULT_OK);
    comet_close(c);
}

static void null(comet_t *c) {
    comet_receipt receipt = {7};
    CHECK(comet_open("", NULL) == COMET_RESULT_NULL_PARAMETER);
    CHECK(comet_popen("", NULL) == COMET_RESULT_NULL_PARAMETER);
    CHECK(publish(NULL, "x", 0, &receipt) == COMET_RESULT_NULL_PARAMETER);
    CHECK(comet_publish(c, NULL, 4, "x", 1, 0, &receipt) == COMET_RESULT_NULL_PARAMETER);
    CHECK(comet_publish(c, "news", 4, NULL, 1, 0, &receipt) == COMET_RESULT_NULL_PARAMETER);
    CHECK(comet_flush(NULL) == COMET_RESULT_NULL_PARAMETER);
    CHECK(comet_touch(NULL, "news", 4) == COMET_RESULT_NULL_PARAMETER);
    CHECK(comet_touch(c, NULL, 4) == COMET_RESULT_NULL_PARAMETER);
    CHECK(comet_write(NULL, "news", 4, "x", 1) == COMET_RESULT_NULL_PARAMETER);
    CHECK(comet_write(c, NULL, 4, "x", 1) == COMET_RESULT_NULL_PARAMETER);
    CHECK(comet_write(c, "news", 4, NULL, 1) == COMET_RESULT_NULL_PARAMETER);
    uint64_t cursor = 7;
    const char *text = "untouched";
    size_t length = 7;
    CHECK(comet_cursor(NULL, &cursor) == COMET_RESULT_NULL_PARAMETER);
    CHECK(comet_cursor(c, NULL) == COMET_RESULT_NULL_PARAMETER);
    CHECK(comet_history(NULL, "news", 4, 0, &text, &length) == COMET_RESULT_NULL_PARAMETER);
    CHECK(comet_history(c, "news", 4, 0, NULL, &length) == COMET_RESULT_NULL_PARAMETER);
    CHECK(comet_history(c, NULL, 4, 0, &text, &length) == COMET_RESULT_NULL_PARAMETER);
    CHECK(cursor == 7 && strcmp(text, "untouched") == 0 && length == 7);
    CHECK(receipt.id == 7);
    CHECK(strcmp(comet_error(c), "a pointer is NULL where NULL is not allowed") == 0);
    comet_close(NULL);
}

static void names(comet_t *c) {
    char longest[201];
    memset(longest, 'x', sizeof longest);
    CHECK(comet_publish(c, longest, 201, "", 0, 0, NULL) == COMET_RESULT_CHANNEL);
    CHECK(comet_publish(c, "", 0, "", 0, 0, NULL) == COMET_RESULT_CHANNEL);
    CHECK(comet_publish(c, "a\0b", 3, "", 0, 0, NULL) == COMET_RESULT_CHANNEL);
    CHECK(comet_publish(c, "\xff", 1, "", 0, 0, NULL) == COMET_RESULT_CHANNEL);
    CHECK(comet_touch(c, "../etc", 6) == COMET_RESULT_CHANNEL);
    CHECK(strcmp(comet_error(c), "channel name may not start with a dot") == 0);
    CHECK(comet_write(c, "a/b", 3, "", 0) == COMET_RESULT_CHANNEL);
    CHECK(strncmp(comet_error(c), "channel name may not contain '/'", 32) == 0);
    CHECK(comet_publish(c, "news", SIZE_MAX, "", 0, 0, NULL) == COMET_RESULT_LENGTH);
    CHECK(comet_publish(c, "news", 4, "", SIZE_MAX, 0, NULL) == COMET_RESULT_LENGTH);
    CHECK(comet_publish(c, "news", 4, "", 0, 8, NULL) == COMET_RESULT_FLAGS);
    CHECK(strcmp(comet_error(c), "unknown flags 0x8 (known: 1 no ack, 2 buffer, 4 spool)") == 0);
    CHECK(comet_publish_named(c, "news", 4, longest, 201, NULL, 0, "", 0, 0, NULL) == COMET_RESULT_NAME);
    CHECK(comet_publish_named(c, "news", 4, "\xff", 1, NULL, 0, "", 0, 0, NULL) == COMET_RESULT_NAME);
    CHECK(strcmp(comet_error(c), "event name is not UTF-8") == 0);
    CHECK(comet_publish_named(c, "news", 4, NULL, 0, longest, 129, "", 0, 0, NULL) == COMET_RESULT_KEY);
    CHECK(strcmp(comet_error(c), "key of 129 bytes is over the limit of 128") == 0);
    CHECK(comet_publish_named(c, "news", 4, NULL, 1, NULL, 0, "", 0, 0, NULL) == COMET_RESULT_NULL_PARAMETER);
    /* None of these calls needed the daemon, and the handle still works. */
    CHECK(comet_publish(c, longest, 200, NULL, 0, 0, NULL) == COMET_RESULT_OK);
}

static void bytes(comet_t *c) {
    comet_receipt first = {0}, second = {0};
    CHECK(comet_publish(c, "binary", 6, "a\0\xff", 3, 0, &first) == COMET_RESULT_OK);
    CHECK(publish(c, "h\xc3\xa9", 0, &second) == COMET_RESULT_OK);
    CHECK(second.id > first.id && first.id > 1700000000000000);
    CHECK(publish(c, "later", COMET_FLAG_NO_ACK, &second) == COMET_RESULT_OK);
    CHECK(second.id == 0);
    CHECK(publish(c, "gathered", COMET_FLAG_BUFFER, NULL) == COMET_RESULT_OK);
    CHECK(comet_flush(c) == COMET_RESULT_OK);
}

static void keys(comet_t *c) {
    comet_receipt first = {0}, again = {0}, other = {0};
    CHECK(comet_publish_named(c, "orders", 6, "paid", 4, "order-7", 7, "one", 3, 0, &first) == COMET_RESULT_OK);
    CHECK(comet_publish_named(c, "orders", 6, NULL, 0, "order-7", 7, "two", 3, 0, &again) == COMET_RESULT_OK);
    CHECK(comet_publish_named(c, "orders", 6, "", 0, "", 0, "three", 5, 0, &other) == COMET_RESULT_OK);
    CHECK(first.id == again.id && other.id > first.id);
}

static void several(comet_t *c) {
    comet_receipt receipt = {0};
    const char *text = NULL;
    char message[160];
    CHECK(comet_publish(c, "one,two", 7, "hi", 2, 0, &receipt) == COMET_RESULT_OK);
    CHECK(comet_publish(c, "one,,two", 8, "hi", 2, 0, &receipt) == COMET_RESULT_CHANNEL);
    CHECK(comet_touch(c, "one,two", 7) == COMET_RESULT_CHANNEL);
    CHECK(comet_history(c, "two,one", 7, 0, &text, NULL) == COMET_RESULT_OK);
    snprintf(message, sizeof message, "[{\"channel\":\"one\",\"channels\":[\"one\",\"two\"],\"id\":%llu,\"name\":\"\",\"data\":\"hi\"}]",
             (unsigned long long)receipt.id);
    CHECK(strstr(text, message) != NULL);
}

static void files(comet_t *c, const char *directory) {
    char path[PATH_MAX], content[8];
    FILE *file;
    snprintf(path, sizeof path, "%s/file.comet", directory);
    CHECK(comet_touch(c, "file", 4) == COMET_RESULT_OK);
    CHECK(access(path, F_OK) == 0);
    CHECK(comet_write(c, "file", 4, "a\0b", 3) == COMET_RESULT_OK);
    CHECK((file = fopen(path, "r")) != NULL);
    CHECK(fread(content, 1, sizeof content, file) == 3 && memcmp(content, "a\0b", 3) == 0);
    fclose(file);
    CHECK(unlink(path) == 0 && symlink("/etc/passwd", path) == 0);
    CHECK(comet_touch(c, "file", 4) == COMET_RESULT_FILE);
    CHECK(strstr(comet_error(c), "file.comet: it is a symbolic link, not a regular file") != NULL);
}

int main(int argc, char **argv) {
    begin();
    CHECK(argc == 3);
    version();
    dsn();
    comet_t *c = opened(argv[1]);
    null(c);
    names(c);
    bytes(c);
    keys(c);
    several(c);
    files(c, argv[2]);
    comet_close(c);
    return 0;
}
