<?php

declare(strict_types=1);

namespace Comet;

/** What libcomet could not do, in its words; the code is its result number (COMET_RESULT_* in comet.h). */
class Exception extends \RuntimeException
{
}
