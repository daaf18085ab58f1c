"""SDPO (arXiv 2601.20802)."""

PLUGINS = {"teacher_prompts": "teacher_prompts:TeacherPrompts", "sdpo": "plugin:Sdpo"}
