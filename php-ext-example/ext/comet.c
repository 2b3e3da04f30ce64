/* Comet\Client over libcomet. This file adds only PHP's types and exceptions. ../src/ClientInterface.php and comet.h
 * say what the methods do. */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <dlfcn.h> /* dladdr; PHP's build defines _GNU_SOURCE */

#include "php.h"
#include "ext/json/php_json.h"
#include "ext/spl/spl_exceptions.h"
#include "ext/standard/base64.h"
#include "ext/standard/info.h"
#include "ext/standard/php_string.h"
#include "zend_exceptions.h"

#include "comet.h"

#define ABI_MAJOR 1 /* the version of libcomet's interface that this file needs */

typedef struct {
    comet_t *handle; /* the pool's: never closed here */
    bool buffered, spooled;
    zend_object std;
} client_object;

static zend_class_entry *interface_ce, *client_ce, *exception_ce, *argument_ce, *connect_ce, *timeout_ce, *unknown_ce,
    *refused_ce, *file_ce;
static zend_object_handlers client_handlers;

static client_object *client_of(zend_object *object) {
    return (client_object *)((char *)object - XtOffsetOf(client_object, std));
}

static zend_class_entry *exception_of(comet_result result) {
    switch (result) {
        case COMET_RESULT_DSN:
        case COMET_RESULT_CHANNEL:
        case COMET_RESULT_FLAGS:
        case COMET_RESULT_LENGTH:
        case COMET_RESULT_NAME:
        case COMET_RESULT_KEY:
            return argument_ce;
        case COMET_RESULT_CONNECT:
            return connect_ce;
        case COMET_RESULT_TIMEOUT:
            return timeout_ce;
        case COMET_RESULT_UNKNOWN:
            return unknown_ce;
        case COMET_RESULT_REFUSED:
            return refused_ce;
        case COMET_RESULT_FILE:
            return file_ce;
        default:
            return exception_ce;
    }
}

/* Throws the exception for an error. Returns true if the message is in the spool, because the daemon is down. */
static bool check(comet_result result) {
    if ((int)result < 0) {
        zend_throw_exception(exception_of(result), comet_error(NULL), result);
    }
    return result == COMET_RESULT_SPOOLED;
}

static zend_object *client_create(zend_class_entry *ce) {
    client_object *client = zend_object_alloc(sizeof(client_object), ce);
    zend_object_std_init(&client->std, ce);
    object_properties_init(&client->std, ce);
    client->std.handlers = &client_handlers;
    return &client->std;
}

/* Raises a warning that never becomes an exception: an exception here would end the request and could not be caught. */
static void warn(const char *reason) {
    bool thrown_before = EG(exception) != NULL;
    char *text;
    spprintf(&text, 0, "Comet: buffered messages are lost: %s", reason);
    zend_error(E_USER_WARNING, "%s", text);
    if (EG(exception) && !thrown_before) { /* the application's handler has thrown */
        zend_clear_exception();
        php_log_err(text);
    }
    efree(text);
}

static void client_destroy(zend_object *object) {
    client_object *client = client_of(object);
    if (client->buffered && (int)comet_flush(client->handle) < 0) {
        warn(comet_error(client->handle));
    }
    zend_objects_destroy_object(object);
}

ZEND_METHOD(Client, __construct) {
    zend_string *dsn = NULL;
    ZEND_PARSE_PARAMETERS_START(0, 1)
        Z_PARAM_OPTIONAL
        Z_PARAM_STR(dsn)
    ZEND_PARSE_PARAMETERS_END();

    if (dsn != NULL && strlen(ZSTR_VAL(dsn)) != ZSTR_LEN(dsn)) {
        zend_throw_exception(argument_ce, "DSN may not contain a NUL byte", COMET_RESULT_DSN);
        RETURN_THROWS();
    }
    check(comet_popen(dsn != NULL ? ZSTR_VAL(dsn) : NULL, &client_of(Z_OBJ_P(ZEND_THIS))->handle));
}

ZEND_METHOD(Client, publish) {
    zend_string *channel, *data = ZSTR_EMPTY_ALLOC(), *name = ZSTR_EMPTY_ALLOC(), *key = NULL;
    zend_long flags = 0;
    ZEND_PARSE_PARAMETERS_START(1, 5)
        Z_PARAM_STR(channel)
        Z_PARAM_OPTIONAL
        Z_PARAM_STR(data)
        Z_PARAM_LONG(flags)
        Z_PARAM_STR(name)
        Z_PARAM_STR_OR_NULL(key)
    ZEND_PARSE_PARAMETERS_END();

    client_object *client = client_of(Z_OBJ_P(ZEND_THIS));
    comet_receipt receipt = {0};
    /* C has 32 bits. A larger value must not become a valid flag when it is cut off. */
    uint32_t bits = (uint32_t)MIN(MAX(flags, -1), UINT32_MAX) | COMET_FLAG_SPOOL;
    comet_result result = comet_publish_named(
        client->handle, ZSTR_VAL(channel), ZSTR_LEN(channel), ZSTR_VAL(name), ZSTR_LEN(name),
        key != NULL ? ZSTR_VAL(key) : NULL, key != NULL ? ZSTR_LEN(key) : 0, ZSTR_VAL(data), ZSTR_LEN(data), bits,
        &receipt);
    client->spooled = check(result);
    if (EG(exception)) {
        RETURN_THROWS();
    }
    client->buffered = client->buffered || (bits & COMET_FLAG_BUFFER);
    if (receipt.id != 0) {
        RETURN_LONG((zend_long)receipt.id);
    }
}

ZEND_METHOD(Client, touch) {
    zend_string *channel;
    ZEND_PARSE_PARAMETERS_START(1, 1)
        Z_PARAM_STR(channel)
    ZEND_PARSE_PARAMETERS_END();

    check(comet_touch(client_of(Z_OBJ_P(ZEND_THIS))->handle, ZSTR_VAL(channel), ZSTR_LEN(channel)));
}

ZEND_METHOD(Client, write) {
    zend_string *channel, *data;
    ZEND_PARSE_PARAMETERS_START(2, 2)
        Z_PARAM_STR(channel)
        Z_PARAM_STR(data)
    ZEND_PARSE_PARAMETERS_END();

    check(comet_write(client_of(Z_OBJ_P(ZEND_THIS))->handle, ZSTR_VAL(channel), ZSTR_LEN(channel), ZSTR_VAL(data),
                      ZSTR_LEN(data)));
}

ZEND_METHOD(Client, flush) {
    ZEND_PARSE_PARAMETERS_NONE();

    client_object *client = client_of(Z_OBJ_P(ZEND_THIS));
    client->buffered = false;
    client->spooled = check(comet_flush(client->handle));
}

ZEND_METHOD(Client, spooled) {
    ZEND_PARSE_PARAMETERS_NONE();

    RETURN_BOOL(client_of(Z_OBJ_P(ZEND_THIS))->spooled);
}

ZEND_METHOD(Client, cursor) {
    ZEND_PARSE_PARAMETERS_NONE();

    uint64_t cursor = 0;
    check(comet_cursor(client_of(Z_OBJ_P(ZEND_THIS))->handle, &cursor));
    RETURN_LONG((zend_long)cursor);
}

/* Replaces base64 data by its bytes. */
static void decode_message(zval *message) {
    zval *data = zend_hash_str_find(Z_ARRVAL_P(message), ZEND_STRL("data"));
    if (data == NULL || Z_TYPE_P(data) != IS_STRING
        || zend_hash_str_del(Z_ARRVAL_P(message), ZEND_STRL("encoding")) == FAILURE) {
        return;
    }
    zend_string *bytes = php_base64_decode((const unsigned char *)Z_STRVAL_P(data), Z_STRLEN_P(data));
    if (bytes != NULL) {
        zval_ptr_dtor(data);
        ZVAL_STR(data, bytes);
    }
}

/* Makes the array that history() returns from the daemon's line. Returns false if the line is no such answer. */
static bool decode_history(zval *line, zval *history) {
    if (Z_TYPE_P(line) != IS_ARRAY) {
        return false;
    }
    zval *cursor = zend_hash_str_find(Z_ARRVAL_P(line), ZEND_STRL("cursor")), *message;
    zval *gap = zend_hash_str_find(Z_ARRVAL_P(line), ZEND_STRL("gap"));
    zval *messages = zend_hash_str_find(Z_ARRVAL_P(line), ZEND_STRL("messages"));
    if (cursor == NULL || gap == NULL || messages == NULL || Z_TYPE_P(messages) != IS_ARRAY) {
        return false;
    }
    ZEND_HASH_FOREACH_VAL(Z_ARRVAL_P(messages), message) {
        if (Z_TYPE_P(message) == IS_ARRAY) {
            decode_message(message);
        }
    } ZEND_HASH_FOREACH_END();
    array_init(history);
    add_assoc_long(history, "cursor", zval_get_long(cursor));
    add_assoc_bool(history, "gap", zend_is_true(gap));
    Z_TRY_ADDREF_P(messages);
    add_assoc_zval(history, "messages", messages);
    return true;
}

ZEND_METHOD(Client, history) {
    zend_string *name = NULL;
    HashTable *list = NULL;
    zend_long since = 0;
    ZEND_PARSE_PARAMETERS_START(1, 2)
        Z_PARAM_ARRAY_HT_OR_STR(list, name)
        Z_PARAM_OPTIONAL
        Z_PARAM_LONG(since)
    ZEND_PARSE_PARAMETERS_END();

    if (since < 0) {
        zend_throw_exception(argument_ce, "since must be a message's id, or 0", COMET_RESULT_DSN);
        RETURN_THROWS();
    }
    zval names;
    if (list != NULL) {
        php_implode(ZSTR_CHAR(','), list, &names);
    } else {
        ZVAL_STR_COPY(&names, name);
    }
    const char *text = NULL;
    size_t length = 0;
    if (!EG(exception)) {
        check(comet_history(client_of(Z_OBJ_P(ZEND_THIS))->handle, Z_STRVAL(names), Z_STRLEN(names), (uint64_t)since,
                            &text, &length));
    }
    zval_ptr_dtor(&names);
    if (EG(exception)) {
        RETURN_THROWS();
    }
    zval line;
    php_json_decode_ex(&line, text, length, PHP_JSON_OBJECT_AS_ARRAY, PHP_JSON_PARSER_DEFAULT_DEPTH);
    if (!decode_history(&line, return_value)) {
        zend_throw_exception(exception_ce, "the daemon's answer to history is malformed", COMET_RESULT_PROTOCOL);
    }
    zval_ptr_dtor(&line);
}

#include "comet_arginfo.h"

static zend_class_entry *register_exception(const char *name, zend_class_entry *parent) {
    zend_class_entry ce;
    INIT_CLASS_ENTRY_EX(ce, name, strlen(name), NULL);
    return zend_register_internal_class_ex(&ce, parent);
}

static void register_interface(void) {
    zend_class_entry ce;
    INIT_NS_CLASS_ENTRY(ce, "Comet", "ClientInterface", interface_methods);
    interface_ce = zend_register_internal_interface(&ce);
    zend_declare_class_constant_long(interface_ce, ZEND_STRL("NO_ACK"), COMET_FLAG_NO_ACK);
    zend_declare_class_constant_long(interface_ce, ZEND_STRL("BUFFER"), COMET_FLAG_BUFFER);
}

static void register_client(void) {
    zend_class_entry ce;
    INIT_NS_CLASS_ENTRY(ce, "Comet", "Client", client_methods);
    client_ce = zend_register_internal_class(&ce);
    client_ce->ce_flags |= ZEND_ACC_FINAL | ZEND_ACC_NO_DYNAMIC_PROPERTIES | ZEND_ACC_NOT_SERIALIZABLE;
    client_ce->create_object = client_create;
    zend_class_implements(client_ce, 1, interface_ce);

    client_handlers = std_object_handlers;
    client_handlers.offset = XtOffsetOf(client_object, std);
    client_handlers.dtor_obj = client_destroy;
    client_handlers.clone_obj = NULL;
}

PHP_MINIT_FUNCTION(comet) {
    if (comet_abi_version() >> 16 != ABI_MAJOR) {
        zend_error(E_CORE_WARNING, "libcomet %s does not fit this version of the comet extension", comet_version());
        return FAILURE;
    }
    exception_ce = register_exception("Comet\\Exception", spl_ce_RuntimeException);
    argument_ce = register_exception("Comet\\ArgumentException", exception_ce);
    connect_ce = register_exception("Comet\\ConnectException", exception_ce);
    timeout_ce = register_exception("Comet\\TimeoutException", exception_ce);
    unknown_ce = register_exception("Comet\\UnknownException", exception_ce);
    refused_ce = register_exception("Comet\\RefusedException", exception_ce);
    file_ce = register_exception("Comet\\FileException", exception_ce);
    register_interface();
    register_client();
    return SUCCESS;
}

PHP_MINFO_FUNCTION(comet) {
    Dl_info library;
    php_info_print_table_start();
    php_info_print_table_row(2, "libcomet", comet_version());
    php_info_print_table_row(
        2, "libcomet's file", dladdr((void *)comet_version, &library) != 0 ? library.dli_fname : "unknown");
    php_info_print_table_end();
}

static const zend_module_dep comet_deps[] = {ZEND_MOD_REQUIRED("spl") ZEND_MOD_REQUIRED("json") ZEND_MOD_END};

zend_module_entry comet_module_entry = {
    STANDARD_MODULE_HEADER_EX, NULL, comet_deps, "comet", NULL, PHP_MINIT(comet), NULL, NULL, NULL, PHP_MINFO(comet),
    "0.1.0", STANDARD_MODULE_PROPERTIES,
};

#ifdef COMPILE_DL_COMET
ZEND_GET_MODULE(comet)
#endif
