<?php

declare(strict_types=1);

namespace Comet;

/** An error of libcomet. The code is libcomet's result number (COMET_RESULT_* in comet.h). */
class Exception extends \RuntimeException
{
}
