<?php

declare(strict_types=1);

namespace Comet;

/** Not done in time. What was sent may be published all the same. */
class TimeoutException extends Exception
{
}
