/* Comet\Client over libcomet: types and exceptions, nothing else. What the methods do is said in ../src/Client.php
 * and in comet.h. */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "php.h"
#include "ext/spl/spl_exceptions.h"
#include "ext/standard/info.h"
#include "zend_exceptions.h"

#include "comet.h"

#define ABI_MAJOR 1 /* of libcomet's interface, as this file is written for it */

typedef struct {
    comet_t *handle; /* the pool's: never closed here */
    bool buffered, spooled;
    zend_object std;
} client_object;

static zend_class_entry *client_ce, *exception_ce, *argument_ce, *connect_ce, *timeout_ce, *unknown_ce, *refused_ce,
    *file_ce;
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

/* Throws what went wrong; true: the daemon is away, and the spool has it. */
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

static void client_destroy(zend_object *object) {
    client_object *client = client_of(object);
    if (client->buffered && (int)comet_flush(client->handle) < 0) {
        zend_error(E_USER_WARNING, "Comet: buffered messages are lost: %s", comet_error(client->handle));
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
    /* C has 32 bits; what is cut off must not become a valid flag */
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

#include "comet_arginfo.h"

static zend_class_entry *register_exception(const char *name, zend_class_entry *parent) {
    zend_class_entry ce;
    INIT_CLASS_ENTRY_EX(ce, name, strlen(name), NULL);
    return zend_register_internal_class_ex(&ce, parent);
}

static void register_client(void) {
    zend_class_entry ce;
    INIT_NS_CLASS_ENTRY(ce, "Comet", "Client", client_methods);
    client_ce = zend_register_internal_class(&ce);
    client_ce->ce_flags |= ZEND_ACC_FINAL | ZEND_ACC_NO_DYNAMIC_PROPERTIES | ZEND_ACC_NOT_SERIALIZABLE;
    client_ce->create_object = client_create;
    zend_declare_class_constant_long(client_ce, ZEND_STRL("NO_ACK"), COMET_FLAG_NO_ACK);
    zend_declare_class_constant_long(client_ce, ZEND_STRL("BUFFER"), COMET_FLAG_BUFFER);

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
    register_client();
    return SUCCESS;
}

PHP_MINFO_FUNCTION(comet) {
    php_info_print_table_start();
    php_info_print_table_row(2, "libcomet", comet_version());
    php_info_print_table_end();
}

static const zend_module_dep comet_deps[] = {ZEND_MOD_REQUIRED("spl") ZEND_MOD_END};

zend_module_entry comet_module_entry = {
    STANDARD_MODULE_HEADER_EX, NULL, comet_deps, "comet", NULL, PHP_MINIT(comet), NULL, NULL, NULL, PHP_MINFO(comet),
    "0.1.0", STANDARD_MODULE_PROPERTIES,
};

#ifdef COMPILE_DL_COMET
ZEND_GET_MODULE(comet)
#endif
