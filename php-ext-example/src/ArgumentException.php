<?php

declare(strict_types=1);

namespace Comet;

/** A DSN, channel name or flag breaks a rule. Nothing was published. */
class ArgumentException extends Exception
{
}
