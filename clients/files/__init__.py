"""Files over FTP, FTPS and SFTP: list, read, write and download, with resume and atomic replacement."""
