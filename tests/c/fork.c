/* A child process has its own connection, and does not send messages that its parent has gathered. Argument: DSN. */
#include <pthread.h>
#include <sys/wait.h>

#include "check.h"

static void join(pid_t child) {
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(int argc, char **argv) {
    begin();
    CHECK(argc == 2);
    comet_t *own = opened(argv[1]), *pooled = NULL;
    CHECK(comet_popen(argv[1], &pooled) == COMET_RESULT_OK);
    comet_t *handles[] = {own, pooled};
    for (int i = 0; i < 2; i++) {
        comet_t *c = handles[i];
        comet_receipt before, after;
        CHECK(publish(c, "parent", 0, &before) == COMET_RESULT_OK);
        CHECK(publish(c, "unsent", COMET_FLAG_BUFFER, NULL) == COMET_RESULT_OK);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            comet_receipt receipt;
            CHECK(publish(c, "child", 0, &receipt) == COMET_RESULT_OK);
            CHECK(receipt.id > before.id);
            CHECK(publish(c, "child, gathered", COMET_FLAG_BUFFER, NULL) == COMET_RESULT_OK);
            CHECK(comet_flush(c) == COMET_RESULT_OK);
            comet_close(c);
            exit(0); /* with all the destructors that an end of a process runs */
        }
        join(child);
        CHECK(publish(c, "parent again", 0, &after) == COMET_RESULT_OK);
        CHECK(after.id > before.id);
    }
    comet_close(own);
    return 0;
}
