PHP_ARG_WITH([comet], [for Comet],
  [AS_HELP_STRING([--with-comet[=DIR]], [Comet\Client over libcomet; DIR has include/comet.h and lib/libcomet.so])])

if test "$PHP_COMET" != "no"; then
  AS_IF([test "$PHP_COMET" = "yes"], [PHP_COMET=/usr/local])
  AS_IF([test ! -r "$PHP_COMET/include/comet.h"], [AC_MSG_ERROR([there is no $PHP_COMET/include/comet.h])])
  PHP_ADD_INCLUDE([$PHP_COMET/include])
  dnl Not PHP_ADD_LIBRARY_WITH_PATH: it writes DIR/lib into comet.so as a run path, and whoever may write to DIR could
  dnl have php-fpm's master, which is root, run code. The loader finds the installed library by itself.
  COMET_SHARED_LIBADD="-L$PHP_COMET/lib -lcomet"
  PHP_SUBST([COMET_SHARED_LIBADD])
  PHP_NEW_EXTENSION([comet], [comet.c], [$ext_shared], , [-Wall -Wextra -Wno-unused-parameter])
fi
