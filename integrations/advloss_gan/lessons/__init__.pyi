from ._lesson import Lesson as Lesson
from ._run import LESSONS as LESSONS
from ._run import run_lesson as run_lesson
