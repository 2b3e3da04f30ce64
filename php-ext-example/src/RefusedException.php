<?php

declare(strict_types=1);

namespace Comet;

/** The daemon refused the message. The text has the reason. */
class RefusedException extends Exception
{
}
