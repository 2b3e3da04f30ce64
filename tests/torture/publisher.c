/*
 * Reads lines "CHANNEL KEY DATA" and publishes them by libcomet. Answers "ok ID", "away", "unknown" or "refused TEXT".
 */

#include <stdio.h>
#include <string.h>

#include "comet.h"

static char line[1 << 20];

int main(int count, char **arguments) {
    comet_t *comet;
    if (count != 2 || comet_open(arguments[1], &comet) != COMET_RESULT_OK) {
        fprintf(stderr, "usage: publisher DSN: %s\n", comet_error(NULL));
        return 2;
    }
    while (fgets(line, sizeof line, stdin)) {
        char *key = strchr(line, ' ');
        char *data = key ? strchr(key + 1, ' ') : NULL;
        if (!data) return 2;
        size_t channel_length = (size_t)(key++ - line), key_length = (size_t)(data++ - key);
        comet_receipt receipt = {0};
        comet_result result = comet_publish_named(comet, line, channel_length, NULL, 0, key, key_length, data,
                                                  strcspn(data, "\n"), 0, &receipt);
        switch (result) {
        case COMET_RESULT_OK: printf("ok %llu\n", (unsigned long long)receipt.id); break;
        case COMET_RESULT_CONNECT: printf("away\n"); break;
        case COMET_RESULT_TIMEOUT:
        case COMET_RESULT_UNKNOWN: printf("unknown\n"); break;
        default: printf("refused %s\n", comet_error(comet)); break;
        }
        if (fflush(stdout)) return 1;
    }
    comet_close(comet);
    return 0;
}
