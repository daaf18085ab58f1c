PLUGINS = {"group_dro": "plugin:GroupDro"}
