<?php

declare(strict_types=1);

namespace Comet;

/** The time-out was reached. Messages that were sent may still be published. */
class TimeoutException extends Exception
{
}
