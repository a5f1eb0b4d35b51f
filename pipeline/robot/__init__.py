"""What a robot needs of its cameras: the newest view, in few tokens, at the robot's own pace, with its age attached.

Names are imported when they are first used.
"""

from typing import TYPE_CHECKING

from ..lazy_names import lazy_names as _lazy_names

if TYPE_CHECKING:
    from .camera import Camera, Picture, StaleView
    from .feed import RobotFeed
    from .memory import HubMemory, NoMemory, RobotMemory
    from .memory_process import ProcessMemory, ProcessMemoryConfig, TooManyQuestions
    from .perception import Perception, View

__all__ = [
    "Camera",
    "HubMemory",
    "NoMemory",
    "Perception",
    "Picture",
    "ProcessMemory",
    "ProcessMemoryConfig",
    "RobotFeed",
    "RobotMemory",
    "StaleView",
    "TooManyQuestions",
    "View",
]

__getattr__, __dir__ = _lazy_names(
    __name__,
    {
        "camera": ("Camera", "Picture", "StaleView"),
        "feed": ("RobotFeed",),
        "memory": ("HubMemory", "NoMemory", "RobotMemory"),
        "memory_process": ("ProcessMemory", "ProcessMemoryConfig", "TooManyQuestions"),
        "perception": ("Perception", "View"),
    },
)
