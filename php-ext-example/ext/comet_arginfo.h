/* What comet.stub.php says, for Zend. */

ZEND_BEGIN_ARG_INFO_EX(arginfo_construct, 0, 0, 0)
    ZEND_ARG_TYPE_INFO_WITH_DEFAULT_VALUE(0, dsn, IS_STRING, 0, "\'\'")
ZEND_END_ARG_INFO()

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_publish, 0, 1, IS_LONG, 1)
    ZEND_ARG_TYPE_INFO(0, channel, IS_STRING, 0)
    ZEND_ARG_TYPE_INFO_WITH_DEFAULT_VALUE(0, data, IS_STRING, 0, "\'\'")
    ZEND_ARG_TYPE_INFO_WITH_DEFAULT_VALUE(0, flags, IS_LONG, 0, "0")
    ZEND_ARG_TYPE_INFO_WITH_DEFAULT_VALUE(0, name, IS_STRING, 0, "\'\'")
    ZEND_ARG_TYPE_INFO_WITH_DEFAULT_VALUE(0, key, IS_STRING, 1, "null")
ZEND_END_ARG_INFO()

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_touch, 0, 1, IS_VOID, 0)
    ZEND_ARG_TYPE_INFO(0, channel, IS_STRING, 0)
ZEND_END_ARG_INFO()

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_write, 0, 2, IS_VOID, 0)
    ZEND_ARG_TYPE_INFO(0, channel, IS_STRING, 0)
    ZEND_ARG_TYPE_INFO(0, data, IS_STRING, 0)
ZEND_END_ARG_INFO()

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_flush, 0, 0, IS_VOID, 0)
ZEND_END_ARG_INFO()

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_spooled, 0, 0, _IS_BOOL, 0)
ZEND_END_ARG_INFO()

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_cursor, 0, 0, IS_LONG, 0)
ZEND_END_ARG_INFO()

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_history, 0, 1, IS_ARRAY, 0)
    ZEND_ARG_TYPE_MASK(0, channels, MAY_BE_STRING|MAY_BE_ARRAY, NULL)
    ZEND_ARG_TYPE_INFO_WITH_DEFAULT_VALUE(0, since, IS_LONG, 0, "0")
ZEND_END_ARG_INFO()

static const zend_function_entry interface_methods[] = {
    ZEND_ABSTRACT_ME(ClientInterface, publish, arginfo_publish)
    ZEND_ABSTRACT_ME(ClientInterface, touch, arginfo_touch)
    ZEND_ABSTRACT_ME(ClientInterface, write, arginfo_write)
    ZEND_ABSTRACT_ME(ClientInterface, flush, arginfo_flush)
    ZEND_ABSTRACT_ME(ClientInterface, spooled, arginfo_spooled)
    ZEND_ABSTRACT_ME(ClientInterface, cursor, arginfo_cursor)
    ZEND_ABSTRACT_ME(ClientInterface, history, arginfo_history)
    ZEND_FE_END
};

static const zend_function_entry client_methods[] = {
    ZEND_ME(Client, __construct, arginfo_construct, ZEND_ACC_PUBLIC)
    ZEND_ME(Client, publish, arginfo_publish, ZEND_ACC_PUBLIC)
    ZEND_ME(Client, touch, arginfo_touch, ZEND_ACC_PUBLIC)
    ZEND_ME(Client, write, arginfo_write, ZEND_ACC_PUBLIC)
    ZEND_ME(Client, flush, arginfo_flush, ZEND_ACC_PUBLIC)
    ZEND_ME(Client, spooled, arginfo_spooled, ZEND_ACC_PUBLIC)
    ZEND_ME(Client, cursor, arginfo_cursor, ZEND_ACC_PUBLIC)
    ZEND_ME(Client, history, arginfo_history, ZEND_ACC_PUBLIC)
    ZEND_FE_END
};
