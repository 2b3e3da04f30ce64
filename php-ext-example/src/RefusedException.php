<?php

declare(strict_types=1);

namespace Comet;

/** The daemon refused the message; its text says why. */
class RefusedException extends Exception
{
}
